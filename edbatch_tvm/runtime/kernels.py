"""A compiled module as callables: which kernels a cell runs, and the arguments that do not change."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from tvm import IRModule

from edbatch_tvm.argument_checks import require_unmasked
from edbatch_tvm.errors import WeightError
from edbatch_tvm.graph.spec import ValueSpec, can_widen
from edbatch_tvm.runtime.artifact import SYMBOL
from edbatch_tvm.runtime.loaded_weights import Key, LoadedWeights, WeightMemory
from edbatch_tvm.runtime.storage import Stored, held_dtype
from relay_ext.add_gather_kernels import ARENA
from relay_ext.fuse_cells import CELL
from relay_ext.join_model_kernels import PROGRAM, ROWS
from relay_ext.narrow_storage import STORAGE
from relay_ext.stage_cells import DTYPE, ORDER, PACKED_SHAPE, PATH, REASON, SCRATCH, WORK
from schedules.abi import ARGUMENTS, padded, table_shape


@dataclass(frozen=True)
class Kernel:
    """One kernel of a cell and its arguments after (step, steps, index), each a kind and a name.

    ``function`` runs it for one batch; None where only the program runs kernels.
    """

    name: str
    cell: str
    arguments: tuple[tuple[str, str], ...]
    function: Any = None


def check_weights(wanted: Mapping[str, ValueSpec], given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The weights as contiguous arrays: those of torch share its memory, which may be read where it lies.

    Others are read-only, since they may change later: whoever keeps them copies them. float32 for a weight of float64
    is widened.

    Raises
    ------
    WeightError
        Naming weights that are missing, extra, or of another shape or dtype.
    """
    if not isinstance(given, Mapping):
        raise WeightError(f"weights in a {type(given).__name__}", "a dict of names and arrays")
    missing = [name for name in wanted if name not in given]
    extra = [name for name in given if name not in wanted]
    if missing:
        raise WeightError(f"missing weights {missing}", f"the {len(wanted)} weights {list(wanted)}")
    if extra:
        raise WeightError(f"extra weights {extra}", f"the {len(wanted)} weights {list(wanted)}")
    weights = {}
    for name, spec in wanted.items():
        array = _as_numpy(name, given[name])
        if can_widen(array.dtype, np.dtype(spec.dtype)):
            array = array.astype(spec.dtype)
        if array.shape != spec.shape or array.dtype != np.dtype(spec.dtype):
            raise WeightError(
                f"weight {name!r} is {ValueSpec(array.shape, str(array.dtype))}",
                str(spec),
                f"convert it with .astype({spec.dtype!r})" if array.shape == spec.shape else "",
            )
        array = np.asarray(array, order="C")
        if not hasattr(given[name], "detach"):
            array = array.view()
            array.flags.writeable = False
        weights[name] = array
    return weights


def _as_numpy(name: str, weight: Any) -> np.ndarray:
    require_unmasked(f"weight {name!r}", weight, WeightError)
    if hasattr(weight, "detach"):
        weight = weight.detach().cpu()
        if str(weight.dtype) == "torch.bfloat16":
            weight = weight.float()  # NumPy has no bfloat16; no value changes
    try:
        array = np.asarray(weight.numpy() if hasattr(weight, "numpy") else weight)
    except (TypeError, ValueError) as error:
        raise WeightError(f"weight {name!r} is a {type(weight).__name__} ({error})", "an array") from None
    if array.dtype.kind == "O":
        raise WeightError(f"weight {name!r} is a {type(weight).__name__}", "an array of numbers")
    return array


class KernelSet:
    """All kernels of a model with its packed weights.

    Nothing is compiled here: the attributes of `module` and the functions of `library` are all it takes, so that a
    model that was saved needs the attributes :data:`~relay_ext.stage_cells.PATH`, ``CELL``, ``ORDER``, ``REASON``,
    ``SCRATCH``, ``PACKED_SHAPE``, ``DTYPE``, ``WORK``, :data:`~schedules.abi.ARGUMENTS`,
    :data:`~relay_ext.join_model_kernels.ROWS` and :data:`~edbatch_tvm.runtime.artifact.SYMBOL` by function, the library
    and the weights.

    Parameters
    ----------
    module : IRModule
        Parts, packing functions and the program as the pipeline leaves them.
    library : tvm.runtime.Executable or tvm.runtime.Module
        The same, compiled: it has the program and the packing functions.
    weights : mapping of str to array, optional
        Without, :meth:`hold` has to follow.

    Attributes
    ----------
    program : callable
        See :class:`relay_ext.join_model_kernels.JoinModelKernels`.
    arguments : tuple of (kind, name)
        What the program takes after ``types``.
    by_cell : dict from cell name to list of Kernel
        Equal cells run the same kernels.
    loaded : LoadedWeights
        What the kernels read now.
    stored : Stored
        What values and weights are kept in.
    gathers : bool
        Whether operands are copied by kernels of their own.
    storage : str
        What values and weights of float32 are kept in.
    filled_later : frozenset of str
        Tables that :meth:`load` makes room for alone: their rows are computed when they are read. Can be set.
    """

    loaded: LoadedWeights
    stored: Stored
    filled_later: frozenset[str] = frozenset()

    def __init__(self, module: IRModule, library: Any, weights: Mapping[str, np.ndarray] | None = None) -> None:
        self.scratch_width: dict[str, dict[str, int]] = {"instances": {}, "rows": {}}
        self.scratch_dtype: dict[str, str] = {}
        self._packs: dict[str, tuple[Any, tuple[int, ...], str]] = {}
        self._spare: list[tuple[int, dict[Key, Any]]] = []
        self._work: dict[str, int] = {}
        every = {var.name_hint: function for var, function in module.functions.items()}
        functions = {name: function for name, function in every.items() if CELL in function.attrs}
        self.gathers = any(ARENA in function.attrs for function in every.values())
        stored = (str(function.attrs[STORAGE]) for function in functions.values() if STORAGE in function.attrs)
        self.storage = next(stored, "float32")
        self.program = library[PROGRAM]
        self.arguments = _arguments(every[PROGRAM])
        kernels: dict[str, list[tuple[str, tuple[tuple[str, str], ...]]]] = {}
        paths: dict[str, str] = {}
        for name, function in sorted(functions.items(), key=lambda item: int(item[1].attrs[ORDER])):
            cell, path = str(function.attrs[CELL]), str(function.attrs[PATH])
            if path == "pack":
                continue
            reason = f" ({function.attrs[REASON]})" if REASON in function.attrs else ""
            paths[cell] = path + reason
            kernels.setdefault(cell, []).append((name, _arguments(function)))
            self._work[cell] = self._work.get(cell, 0) + int(function.attrs.get(WORK, 0))  # older saved models: none
            dtype = str(function.attrs.get(DTYPE, "float32"))  # kernels of older saved models have none
            for text in function.attrs.get(SCRATCH, []):
                scratch, domain, width = str(text).rsplit(":", 2)
                self.scratch_width[domain][scratch] = padded(int(width))
                self.scratch_dtype[scratch] = dtype
            if f"{name}_pack" in functions:
                shape = tuple(int(extent) for extent in function.attrs[PACKED_SHAPE])
                pack = functions[f"{name}_pack"]
                self._packs[name] = library[str(pack.attrs.get(SYMBOL, f"{name}_pack"))], shape, dtype
        rows = [[tuple(map(str, texts)) for texts in row] for row in every[PROGRAM].attrs[ROWS]]
        self._rows = {cell: _Row(first, int(number), addresses) for (cell, first, number), *addresses in rows}
        self._keys, self._types, self._sites, self._key_at = _sites_of(list(self._rows.values()))
        self.paths = {cell: paths[row.first] for cell, row in self._rows.items()}
        self.by_cell = {
            cell: [Kernel(name, cell, arguments) for name, arguments in kernels[row.first]]
            for cell, row in self._rows.items()
        }
        if weights is not None:
            self.load(weights)

    def load(self, weights: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray] = MappingProxyType({})) -> None:
        """Take `weights` from now on: pack those of stages; the others are shared where they lie aligned.

        Parameters
        ----------
        weights : mapping of str to array
        rows : mapping of str to int array
            Of tables, the rows that differ from what was loaded last; all of others may.
        """
        memory = WeightMemory(self.storage, getattr(self, "loaded", None), rows, self._spare)
        tensors: dict[Key, Any] = {}
        for key in self._keys:
            if key[0] == "packed":
                tensors[key] = memory.packed(key, *self._packs[key[1]], [weights[source] for source in key[2:]])
            elif key[1] in self.filled_later:
                shape = weights[key[1]].shape
                shape = table_shape(shape) if key[0] == "table" else shape
                tensors[key] = memory.room(key, shape, weights[key[1]].dtype)
            elif key[0] == "table":
                tensors[key] = memory.table(key, weights[key[1]])
            else:
                tensors[key] = memory.weight(key, weights[key[1]])
        self._take(tensors, memory)

    def _take(self, tensors: dict[Key, Any], memory: WeightMemory | None = None) -> None:
        types = self._types.copy()
        addresses = np.array([tensors[key].data_ptr() for key in self._keys], np.int64)
        types.ravel()[self._sites] = addresses[self._key_at]
        self.loaded = LoadedWeights(tensors, types, memory)
        if not hasattr(self, "stored"):  # always the same
            sizes = (math.prod(one.shape) * np.dtype(str(one.dtype)).itemsize for one in tensors.values())
            self.stored = Stored(self.storage, sum(sizes))

    def rooms(self, loaded: LoadedWeights, name: str) -> list[np.ndarray]:
        """Where the kernels that `loaded` was loaded for read a table; rows may be padded."""
        return [
            np.from_dlpack(tensor) for key, tensor in loaded.tensors.items() if key[0] != "packed" and key[1] == name
        ]

    @property
    def attributes(self) -> list[tuple[int, int, int]]:
        """Row and column of the table of types of each address of an attribute, and the number of the attribute."""
        return [
            (number, column, int(key[1].rpartition(".")[2]))
            for number, row in enumerate(self._rows.values())
            for column, key in enumerate(row.addresses, 1)
            if key[0] == "attribute"
        ]

    def _texts(self) -> dict[str, tuple[str, ...]]:
        """What kernels read as texts ``kind:name``, with what :data:`~relay_ext.join_model_kernels.ROWS` says of it.

        What a kernel reads for a cell that is equal to its own is of the kind ``packed@<type>``.
        """
        texts: dict[tuple[str, ...], str] = {}
        for number, (cell, row) in enumerate(self._rows.items()):
            for key in row.addresses:
                if key[0] == "packed":
                    kind = "packed" if cell == row.first else f"packed@{number}"
                    texts.setdefault(key, f"{kind}:{key[1]}")
                elif key[0] != "attribute":
                    texts[key] = ":".join(key)
        return {text: key for key, text in texts.items()}

    def held(self) -> dict[str, np.ndarray]:
        """What kernels read at this moment, by ``kind:name``: packed weights, and the others as they lie; no copies."""
        tensors = self.loaded.give_out()
        return {text: np.from_dlpack(tensors[key]) for text, key in self._texts().items()}

    def hold(self, held: Mapping[str, Any], specs: Mapping[str, ValueSpec]) -> None:
        """Take what :meth:`held` gave, as aligned tensors, from now on.

        Parameters
        ----------
        held : mapping of str to tensor
        specs : mapping of str to ValueSpec
            Of all weights and constants.

        Raises
        ------
        ValueError
            If it is not all that kernels read, in the shapes they read it in.
        """
        tensors: dict[Key, Any] = {}
        for text, key in self._texts().items():
            kind, name = key[:2]
            if kind == "packed":
                _, shape, dtype = self._packs[name]
            else:
                spec = specs[name]
                shape, dtype = table_shape(spec.shape) if kind == "table" else spec.shape, spec.dtype
            tensor = tensors[key] = held[text]
            if (tuple(tensor.shape), str(tensor.dtype)) != (shape, held_dtype(dtype, self.storage)):
                raise ValueError(f"{text} is {dtype}{list(tensor.shape)}")
        self._take(tensors)

    def multiplies(self, cell: str) -> int:
        """About how many multiplications a node of `cell` takes: at least one for each element of its weights."""
        row = self._rows[cell]
        kept = [key for key in row.addresses if key[0] in ("packed", "weight")]
        return max(self._work.get(row.first, 0), sum(math.prod(self.loaded.tensors[key].shape) for key in kept))

    def packed_bytes(self, cell: str) -> int:
        """Bytes of the weights that are packed for the kernels of `cell`."""
        shapes = {key: self._packs[key[1]][1:] for key in self._rows[cell].addresses if key[0] == "packed"}
        return sum(math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in shapes.values())


class _Row(NamedTuple):
    """A row of the table of types: the cell whose kernels the type runs, their number, and what is at each address."""

    first: str
    number: int
    addresses: list[tuple[str, ...]]


def _sites_of(rows: list[_Row]) -> tuple[list[Key], np.ndarray, np.ndarray, np.ndarray]:
    """The keys of what is loaded, the table of types without addresses, and where in it which key's address goes."""
    keys: dict[Key, int] = {}
    width = max((len(row.addresses) for row in rows), default=0)
    types = np.zeros((len(rows), 1 + width), np.int64)
    sites, key_at = [], []
    for number, row in enumerate(rows):
        types[number, 0] = row.number
        for column, key in enumerate(row.addresses, 1):
            if key[0] != "attribute":
                sites.append(number * (1 + width) + column)
                key_at.append(keys.setdefault(key, len(keys)))
    return list(keys), types, np.array(sites, np.int64), np.array(key_at, np.int64)


def _arguments(function: Any) -> tuple[tuple[str, str], ...]:
    """The arguments that `function` lists, each a kind and a name."""
    pairs = (str(text).partition(":") for text in function.attrs[ARGUMENTS])
    return tuple((kind, name) for kind, _, name in pairs)


def as_table(array: np.ndarray) -> np.ndarray:
    """A weight as kernels look rows up in it: two-dimensional, rows padded."""
    rows, width = table_shape(array.shape)
    array = array.reshape(rows, -1)
    return np.pad(array, ((0, 0), (0, width - array.shape[1]))) if width > array.shape[1] else array
