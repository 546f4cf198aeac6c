"""The recorder: calls of cells, of all instances in flight, as flat lists.

A recorded call appends a few numbers and makes one object for each output; everything else happens when the graph is
computed, on arrays (:mod:`edbatch_tvm.recording.flush`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, float32
from torch.utils import _pytree as pytree

from edbatch_tvm.errors import CellError, RecordingError
from edbatch_tvm.recording import memory
from edbatch_tvm.recording.arguments import FEW, INTEGER, Key, key_of_constant, key_of_numbers, key_of_tensor
from edbatch_tvm.recording.attributes import Written
from edbatch_tvm.recording.breaks import told
from edbatch_tvm.recording.flush import rows_of_values
from edbatch_tvm.recording.lazy import LazyTensor, geometry_of, is_tensor, lazy_rows, lazy_value, storage_of
from edbatch_tvm.recording.parameters import RecordedParameter, own_parameter
from edbatch_tvm.recording.recurrent import Unrolls
from edbatch_tvm.recording.rows import POINTWISE, Again, RowByRow
from edbatch_tvm.recording.specs import CODED, RowsSpec, TensorSpec, rows_of, spec_of
from relay_ext.from_torch import RandomCellError

if TYPE_CHECKING:
    from edbatch_tvm.recording.flush import Epoch
    from edbatch_tvm.recording.library import Library
    from edbatch_tvm.recording.memory import Storage
    from edbatch_tvm.recording.site import Site


@dataclass(frozen=True)
class Break:
    """An operation that was not recorded: what it needed was computed, and PyTorch ran it.

    Attributes
    ----------
    operation : str
    place : str
        File and line of the code that asked for it.
    reason : str
    """

    operation: str
    place: str
    reason: str

    def __str__(self) -> str:
        return f"{self.place}: {self.operation}" + (f" ({self.reason})" if self.reason else "")


class Recorder:
    """What the instances of one minibatch have recorded.

    Values are numbered from 0 over all flushes; ``-1 - i`` is tensor i of :attr:`externals`.

    Attributes
    ----------
    recorded, done : int
        Number of values recorded, and of those computed.
    types, ends, operands : list of int
        What is not computed yet: the type of every node, where its operands end, and all operands.
    attributes : dict of int to list
        The attributes of every type, node after node.
    externals : list of tuple
        Copies of tensors that entered from outside, and their specs.
    external_versions : dict of int to tuple
        By the id of such a tensor: itself, how often it had been changed in place, and its number.
    parameters : dict of int to RecordedParameter
        What ``forward`` sees of the model's parameters, by the id of each.
    picked : dict
        Values that are parts of others, by what they are parts of.
    wait, compute : callable
        Have everything computed that is recorded: where other elements may go on meanwhile, and where they may not.
    adopted : list of tuple
        Tensors of the model's that recorded values were written into: they are recorded, and the tensor they were.
    breaks : list of Break
        What was not recorded but run by PyTorch.
    root : torch.nn.Module or None
        The element's copy of the module that the cell called last belongs to.
    reads : int
        Number of operators that were run to read a value.
    epochs : list of Epoch
        What has been computed.
    turns : list of tuple
        How much was recorded when an element went on, since the last flush, and the element.
    """

    __slots__ = (
        *("adopted", "attributes", "breaks", "done", "ends", "epochs", "external_versions", "externals", "library"),
        *(
            "compute",
            "finished",
            "operands",
            "parameters",
            "picked",
            "reads",
            "recorded",
            "root",
            "turns",
            "types",
            "wait",
        ),
    )

    def __init__(self, library: Library, wait: Callable[[], None], compute: Callable[[], None] | None = None) -> None:
        self.library = library
        self.wait = wait
        self.compute = compute or wait
        self.recorded = 0
        self.done = 0
        self.types: list[int] = []
        self.ends: list[int] = []
        self.operands: list[int] = []
        self.attributes: defaultdict[int, list[Any]] = defaultdict(list)
        self.externals: list[tuple[torch.Tensor, TensorSpec]] = []
        self.external_versions: dict[int, tuple[torch.Tensor, int, int]] = {}
        self.parameters: dict[int, RecordedParameter] = {}
        self.picked: dict[Any, int] = {}
        self.adopted: list[tuple[LazyTensor, torch.Tensor]] = []
        self.breaks: list[Break] = []
        self.reads = 0
        self.root: torch.nn.Module | None = None
        self.finished = False
        self.epochs: list[Epoch] = []
        self.turns: list[tuple[int, int]] = [(0, 0)]

    def resumed(self, element: int) -> None:
        """An element goes on."""
        self.turns.append((len(self.types), element))

    def element_of(self, node: int) -> int:
        """The element that recorded a call that is not computed yet."""
        return next(element for begin, element in reversed(self.turns) if begin <= node)

    # Recording --------------------------------------------------------------------------------------------------

    def call(self, site: Site, arguments: tuple[Any, ...]) -> Any:
        """Record one call of a cell.

        Raises
        ------
        CellError
            If calls like this cannot be a cell.
        """
        # What every call passes through: no more function calls and objects than it takes.
        step = site.steps
        operands: list[int] = []
        attributes: list[Any] = []
        rows = -1
        vary = site.integers_vary
        try:
            for argument in arguments:
                kind = type(argument)
                if kind is LazyTensor and argument.recorder is self:
                    if argument.held is None:
                        step = step[argument.spec]
                        operands.append(argument.value)
                        continue
                    spec, values = self.resolved(argument)
                    if type(spec) is TensorSpec:
                        step = step[spec]
                        operands += values
                    elif rows == -1 or rows == len(values):
                        rows = len(values)
                        step = step[spec]
                        operands += values
                    else:
                        step = step["stack", len(values), spec]
                        operands += values
                elif kind is Tensor and vary:
                    if argument.dtype is float32:
                        number = self._external(argument)
                        step = step[self.externals[-1 - number][1]]
                        operands.append(number)
                    else:
                        part = key_of_tensor(argument)
                        step = step[part]
                        # A number is read while it is at hand.
                        attributes.append(argument if part[2] else argument.item())
                elif kind is int and vary:
                    step = step[INTEGER]
                    attributes.append(argument)
                else:
                    key: list[Any] = []
                    if kind is list and vary and argument and (rows == -1 or rows == len(argument)):
                        if self._describe_list(argument, key, operands, attributes):
                            rows = len(argument)
                    else:
                        self._describe(argument, key, operands, attributes, vary)
                    for part in key:
                        step = step[part]
            type_id, outputs, returned = step[FEW, rows] if 0 <= rows <= 1 else step[None]
        except KeyError:
            found = self.library.specialise(self, site, arguments)
            if isinstance(found, RowByRow):
                return self._row_by_row(site, arguments, found)
            if not isinstance(found, tuple):
                return found
            cell, operands, attributes = found
            type_id, outputs, returned = cell.made
        if type_id < 0:
            return self._row_by_row(site, arguments, returned)
        self.types.append(type_id)
        self.operands += operands
        self.ends.append(len(self.operands))
        if attributes:
            self.attributes[type_id] += attributes
        value = self.recorded
        self.recorded = value + len(outputs)
        if returned is None:
            return lazy_value(self, value, outputs[0])
        made = []
        for spec in outputs:
            made.append(lazy_value(self, value, spec))
            value += 1
        return returned(made)

    def append(self, type_id: int, operands: Sequence[int], outputs: int) -> int:
        """Record a node of a cell that is known; the first of its values."""
        self.types.append(type_id)
        self.operands += operands
        self.ends.append(len(self.operands))
        value = self.recorded
        self.recorded = value + outputs
        return value

    def _row_by_row(self, site: Site, arguments: tuple[Any, ...], how: RowByRow) -> Any:
        """Record a call of a cell that treats rows alike as one call a row."""
        columns: list[list[Any]] = []
        count = 0
        for argument, by_rows in zip(arguments, how.by_rows, strict=True):
            if by_rows:
                columns.append(self._rows_one_by_one(argument))
                count = len(columns[-1])
            else:
                columns.append([argument])
        calls = []
        for number in range(count):
            given = tuple(column[number] if by else column[0] for column, by in zip(columns, how.by_rows, strict=True))
            calls.append(pytree.tree_leaves(self.call(site, given)))
        if how.returned is POINTWISE:
            if not calls:
                return self._no_rows(site, arguments)
            row = calls[0][0].spec
            values = [self.value_of(leaves[0]) for leaves in calls]
            return lazy_rows(self, values, spec_of(row.shape[1:], row.dtype))
        outputs, structure = how.returned
        made = []
        for place, spec in enumerate(outputs):
            values = [self.value_of(leaves[place]) for leaves in calls]
            made.append(lazy_rows(self, values, spec_of(spec.shape[1:], spec.dtype)))
        return pytree.tree_unflatten(made, structure)

    def _no_rows(self, site: Site, arguments: tuple[Any, ...]) -> Any:
        """What an operator that works element by element makes of no rows."""
        given = [torch.empty(one.shape, dtype=one.dtype) if type(one) is LazyTensor else one for one in arguments]
        plain = len(given) - len(site.named)
        result = site.target(*given[:plain], **dict(zip(site.named, given[plain:], strict=True)))
        return lazy_rows(self, [], spec_of(result.shape[1:], result.dtype))

    def describe(self, argument: Any, key: list[Any], attributes: list[Any], integers_vary: bool) -> None:
        """Append what the key of a call says of one argument, and its attributes."""
        self._describe(argument, key, [], attributes, integers_vary)

    def _rows_one_by_one(self, argument: Any) -> list[Any]:
        """The rows of a tensor as tensors of one row."""
        if type(argument) is not LazyTensor:
            return list(own_parameter(argument).split(1)) if len(argument) else []
        rows, values = self.resolved(argument)
        if isinstance(rows, TensorSpec):  # described like an ordinary tensor that was taken row by row
            return list(argument.split(1))
        spec = spec_of((1, *rows.row.shape), rows.row.dtype)
        return [lazy_value(self, value, spec) for value in values]

    def described(
        self, arguments: tuple[Any, ...], integers_vary: bool, fixed_rows: bool = False
    ) -> tuple[Key, list[int], list[Any]]:
        """The key of a call, the values it reads and its attributes; see :mod:`edbatch_tvm.recording.arguments`.

        In step with :meth:`call`, but for `fixed_rows`: no operand is variadic.
        """
        key: list[Any] = []
        operands: list[int] = []
        attributes: list[Any] = []
        rows = -1
        for argument in arguments:
            kind = type(argument)
            if kind is LazyTensor and argument.recorder is self:
                spec, values = self.resolved(argument)
                if type(spec) is RowsSpec:
                    # All variadic operands of a call have one number of rows; others are stacked inside.
                    if rows in (-1, len(values)) and not fixed_rows:
                        rows = len(values)
                        key.append(spec)
                    else:
                        key.append(("stack", len(values), spec))
                else:
                    key.append(spec)
                operands += values
            elif kind is list and integers_vary and argument and rows in (-1, len(argument)) and not fixed_rows:
                if self._describe_list(argument, key, operands, attributes):
                    rows = len(argument)
            else:
                self._describe(argument, key, operands, attributes, integers_vary)
        if 0 <= rows <= 1:
            key.append((FEW, rows))
        return tuple(key), operands, attributes

    def _describe_list(self, argument: list[Any], key: list[Any], operands: list[int], attributes: list[Any]) -> bool:
        """Append a list: as a list of any length if its elements are alike, and else element by element."""
        pairs = type(argument[0]) is tuple
        if pairs and all(type(item) is tuple and len(item) == len(argument[0]) for item in argument):
            columns = list(zip(*argument, strict=True))
        else:
            columns = [tuple(argument)]
        parts: list[tuple[TensorSpec, list[int]]] = []
        if all(is_tensor(item) for column in columns for item in column):
            stacked = (self.values_alike(column) for column in columns)
            parts = [part for part in stacked if part is not None]
        if len(parts) != len(columns):
            self._describe(argument, key, operands, attributes, True)
            return False
        key.append(("listed", len(parts), pairs))
        for spec, values in parts:
            key.append(rows_of(spec))
            operands += values
        return True

    def values_alike(self, tensors: Any) -> tuple[TensorSpec, list[int]] | None:
        """The values of tensors of one spec; None if they are not alike."""
        spec: TensorSpec | None = None
        values = []
        for tensor in tensors:
            if type(tensor) is LazyTensor and tensor.recorder is self and tensor.held is None:
                own, value = tensor.spec, tensor.value
            elif isinstance(tensor, Tensor) and tensor.dtype in CODED and tensor.dtype is not torch.int64:
                own, value = spec_of(tensor.shape, tensor.dtype), self.value_of(tensor)
            else:
                return None
            if spec is None:
                spec = own
            elif own is not spec:
                return None
            values.append(value)
        return None if spec is None else (spec, values)

    def _describe(
        self, argument: Any, key: list[Any], operands: list[int], attributes: list[Any], integers_vary: bool
    ) -> None:
        kind = type(argument)
        if kind is LazyTensor and argument.recorder is self:
            spec, values = self.resolved(argument)
            if spec.dtype is torch.int64:
                raise CellError("an operand of whole numbers", "float32")
            key.append(("stack", len(values), spec) if type(spec) is RowsSpec else spec)
            operands += values
        elif isinstance(argument, torch.Tensor):
            argument = own_parameter(argument.computed() if kind is LazyTensor else argument)
            path = None if integers_vary else self.library.path_of(argument)
            if path is not None:
                key.append(("weight", path))
            elif argument.is_floating_point() or (argument.dtype is torch.bool and not integers_vary):
                number = self.value_of(argument)
                key.append(self.externals[-1 - number][1])
                operands.append(number)
            elif integers_vary:
                key.append(key_of_tensor(argument))
                attributes.append(argument)
            else:
                key.append(key_of_numbers(argument))
        elif kind is int and integers_vary:
            key.append(INTEGER)
            attributes.append(argument)
        elif kind is tuple or kind is list or isinstance(argument, tuple):
            key.append(("list" if kind is list else "tuple", len(argument)))
            for item in argument:
                self._describe(item, key, operands, attributes, integers_vary)
        elif kind is dict:
            key.append(("dict", tuple(argument)))
            for item in argument.values():
                self._describe(item, key, operands, attributes, integers_vary)
        else:
            key.append(key_of_constant(argument))

    # Memory -----------------------------------------------------------------------------------------------------

    def resolved(self, tensor: LazyTensor) -> tuple[TensorSpec | RowsSpec, list[int]]:
        """What a tensor is as an operand: one value, or rows of a list."""
        storage = tensor.held
        if storage is None:
            return tensor.spec, [tensor.value]
        geometry = tensor.geometry
        assert geometry is not None
        size, stride, offset = geometry
        dtype = tensor.spec.dtype
        rows = storage.rows
        if len(rows) == 1 and not storage.listed:
            return tensor.spec, [self._picked(rows[0], storage.row, geometry, dtype)]
        if storage.listed:
            found = memory.rows_of_geometry(geometry, storage.row)
            if found is not None:
                first, step, part = found
                count = size[0]
                row = rows_of(spec_of(size[1:], dtype))
                chosen = rows[first : first + count] if step == 1 else [rows[first + n * step] for n in range(count)]
                if part[2] or memory.elements(part[0]) != storage.row or not memory.is_dense(part[0], part[1]):
                    chosen = [self._picked(value, storage.row, part, dtype) for value in chosen]
                return row, chosen
        if tensor.spec.size == 0:
            raise CellError("a tensor without elements")
        first, within = divmod(offset, storage.row)
        last = memory.last_element(size, stride)
        if within + last < storage.row:
            return tensor.spec, [self._picked(rows[first], storage.row, (size, stride, within), dtype)]
        joint = self._joined(storage, dtype)
        return tensor.spec, [self._picked(joint, storage.row * len(rows), geometry, dtype)]

    def _picked(self, value: int, row: int, geometry: memory.Geometry, dtype: torch.dtype) -> int:
        """The value that a part of a row is."""
        size, stride, offset = geometry
        if not offset and memory.elements(size) == row and memory.is_dense(size, stride):
            return value
        key = value, geometry
        found = self.picked.get(key)
        if found is None:
            found = self.picked[key] = self._derived(memory.pick, (value, spec_of((row,), dtype)), geometry)
        return found

    def _joined(self, storage: Storage, dtype: torch.dtype) -> int:
        """All rows of a storage as one value."""
        key = tuple(storage.rows)
        found = self.picked.get(key)
        if found is None:
            rows = lazy_rows(self, storage.rows.copy(), spec_of((storage.row,), dtype))
            try:
                found = self.value_of(self.operator(memory.joined, (rows,), {}))
            except CellError:
                found = self._external(self.read(rows).reshape(-1))
            self.picked[key] = found
        return found

    def _derived(self, function: Any, source: tuple[int, TensorSpec], rest: tuple[Any, ...]) -> int:
        """A value made of another by code of this package."""
        tensor = lazy_value(self, *source)
        try:
            return self.value_of(self.operator(function, (tensor, *rest), {}))
        except CellError:
            given = [self.read(one) if type(one) is LazyTensor else one for one in (tensor, *rest)]
            return self._external(function(*given))

    def write(self, target: LazyTensor, source: Any) -> None:
        """Let the elements of `target` be those of `source`, a tensor of its shape and dtype."""
        storage = storage_of(target)
        geometry = geometry_of(target)
        size, stride, _ = geometry
        if target.spec.size == 0:
            return
        dtype = target.spec.dtype
        found = memory.rows_of_geometry(geometry, storage.row)
        if found is not None and memory.elements(size[1:]) == storage.row and memory.is_dense(size[1:], stride[1:]):
            first, step, _ = found
            for number, value in enumerate(self._values_of_rows(source, size[0], storage.row)):
                storage.rows[first + number * step] = value
            return
        first, within = divmod(geometry[2], storage.row)
        last = memory.last_element(size, stride)
        if within + last >= storage.row:
            joint = self._joined(storage, dtype)
            storage.row *= len(storage.rows)
            storage.rows, storage.listed = [joint], False
            first, within = 0, geometry[2]
        value = self.value_of(source)
        if not within and target.spec.size == storage.row and memory.is_dense(size, stride):
            storage.rows[first] = value
            return
        part = lazy_value(self, value, spec_of((target.spec.size,), dtype))
        given = (storage.rows[first], spec_of((storage.row,), dtype))
        storage.rows[first] = self._derived(memory.patched, given, (part, size, stride, within))

    def _values_of_rows(self, source: Any, count: int, row: int) -> list[int]:
        """The values of the rows of a tensor, flat."""
        if count == 1:
            return [self.value_of(source)]
        if type(source) is LazyTensor and source.recorder is self:
            spec, values = self.resolved(source)
            if type(spec) is RowsSpec:
                return values
            flat = [((row,), (1,), number * row) for number in range(count)]
            return [self._picked(values[0], row * count, part, source.spec.dtype) for part in flat]
        return [self._external(one) for one in source.unbind()]

    def value_of(self, tensor: Any) -> int:
        """The number of a recorded tensor, or of a tensor from outside."""
        if type(tensor) is LazyTensor:
            if tensor.recorder is self:
                if tensor.held is None:
                    return tensor.value
                spec, values = self.resolved(tensor)
                if type(spec) is TensorSpec:
                    return values[0]
                if len(values) == 1:
                    return values[0]
                assert tensor.held is not None
                if tensor.spec.size == 0:
                    raise CellError("a tensor without elements")
                assert isinstance(spec, RowsSpec)
                stacked = lazy_rows(self, values, spec.row)
                assert stacked.held is not None
                return self._joined(stacked.held, tensor.spec.dtype)
            tensor = tensor.computed()
        return self._external(own_parameter(tensor))

    def is_as_passed(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor from outside has not been changed since it was passed."""
        return self.external_versions[id(tensor)][1] == tensor._version

    def _external(self, tensor: torch.Tensor) -> int:
        known = self.external_versions.get(id(tensor))
        version = tensor._version if not tensor.is_inference() else None
        if known is not None and version is not None and known[1] == version:
            return known[2]
        dtype = tensor.dtype
        if dtype not in CODED or not tensor.is_cpu or tensor.layout is not torch.strided:
            raise CellError(
                f"an argument of a cell is a tensor of {dtype} on {tensor.device}",
                "torch.float32 on cpu (or integers, as attributes)",
                "convert the model with .float().cpu()",
            )
        if not tensor.numel():
            raise CellError("a tensor without elements")
        if tensor.requires_grad and torch.is_grad_enabled():
            raise RecordingError(
                f"a tensor of shape {list(tensor.shape)} that requires a gradient is used where gradients are recorded",
                "inference",
                "with torch.no_grad(): ..., or tensor.detach()",
            )
        # A copy: what is changed in place later was another number when it was used.
        copy = tensor.detach().clone() if dtype is float32 else tensor.detach().to(float32)
        self.externals.append((copy, spec_of(tensor.shape, dtype)))
        number = -len(self.externals)
        if version is not None:
            self.external_versions[id(tensor)] = tensor, version, number
        return number

    def external_rows(self, tensor: torch.Tensor) -> torch.Tensor:
        """The numbers of the rows of a tensor from outside, of two dimensions."""
        spec = spec_of((1, tensor.shape[1]))
        first = len(self.externals)
        self.externals += [(row, spec) for row in tensor.detach().clone().split(1)]
        return -1 - torch.arange(first, len(self.externals))

    # Tensor functions between cells -----------------------------------------------------------------------------

    def operator(self, function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Record a tensor function as a cell of its own.

        Raises
        ------
        CellError
            If it cannot be one.
        """
        if named:
            return self.call(self.library.operator_site(function, tuple(named)), (*arguments, *named.values()))
        return self.call(self.library.operator_site(function, ()), arguments)

    # Values -----------------------------------------------------------------------------------------------------

    def is_computed(self, tensor: LazyTensor) -> bool:
        """Whether every row that a tensor may read is computed."""
        rows = [tensor.value] if tensor.held is None else tensor.held.rows
        return all(value < self.done for value in rows)

    def read(self, tensor: LazyTensor) -> torch.Tensor:
        """The value of a recorded tensor; whatever is recorded is computed first, for all instances in flight."""
        return self.peek(tensor).clone(memory_format=torch.preserve_format)

    def peek(self, tensor: LazyTensor) -> torch.Tensor:
        """The same, perhaps in memory of the recorder: for reading."""
        spec = tensor.spec
        if not self.is_computed(tensor):
            self.compute()
        storage = tensor.held
        if storage is None:
            flat = self._flat(tensor.value)
            return spec.decoded(flat if len(spec.shape) == 1 else flat.reshape(spec.shape))
        if tensor.geometry is None or len(storage.rows) == 1:
            flat = self._flat(storage.rows[0])
        else:
            flat = torch.empty(len(storage.rows), storage.row)
            values = np.array(storage.rows, np.int64)
            for number in np.flatnonzero(values < 0).tolist():
                flat[number] = self._flat(storage.rows[number])
            later = np.flatnonzero(values >= 0)
            for places, found in rows_of_values(self.epochs, values[later]):
                flat[torch.from_numpy(later[places])] = torch.from_numpy(found)
            flat = flat.reshape(-1)
        size, stride, offset = geometry_of(tensor)
        return spec.decoded(flat.as_strided(size, stride, flat.storage_offset() + offset))

    def _flat(self, value: int) -> torch.Tensor:
        if value < 0:
            return self.externals[-1 - value][0].reshape(-1)
        return self.epoch_of(value).tensor(value)

    def epoch_of(self, value: int) -> Epoch:
        """What computed `value`."""
        for epoch in reversed(self.epochs):
            if value >= epoch.first:
                return epoch
        raise RecordingError(f"value {value} of a graph that is not computed")

    def finish_epoch(self, epoch: Epoch) -> None:
        """Everything that was recorded is computed: it is `epoch`."""
        self.epochs.append(epoch)
        self.done = self.recorded
        self.types, self.ends, self.operands = [], [], []
        self.attributes = defaultdict(list)
        self.turns = [(0, self.turns[-1][1])]


class CellCall:
    """Stands for a submodule or method of the model while instances run: calling it records.

    Attributes
    ----------
    plain : callable
        What it stands for, for this instance: for calls that cannot be a cell.
    root : torch.nn.Module
        The instance's copy of the module that it belongs to.
    """

    __slots__ = ("plain", "recorder", "root", "site")

    def __init__(self, recorder: Recorder, site: Site, plain: Callable[..., Any], root: torch.nn.Module) -> None:
        self.recorder = recorder
        self.site = site
        self.plain = plain
        self.root = root

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Record one call."""
        if torch._C._is_any_autocast_enabled() or self.recorder.finished or self.site.taken_apart:
            return self.plain(*arguments, **named)
        try:
            plain = self.site.positional(arguments, named) if named else arguments
            return self._recorded(plain)
        except RandomCellError:
            raise
        except Unrolls:
            self.site.taken_apart = True
            return self.plain(*arguments, **named)
        except CellError as error:
            told(self.recorder, f"cell {self.site.name!r}", error)  # its operations may be recorded one by one
            return self.plain(*arguments, **named)

    def _recorded(self, arguments: tuple[Any, ...]) -> Any:
        site, recorder = self.site, self.recorder
        recorder.root = self.root
        while True:
            reads = site.reads
            given = (*arguments, *[one.value(self.root) for one in reads]) if reads else arguments
            result = recorder.call(site, given)
            if type(result) is Again:
                continue
            if type(result) is Written:
                for attribute, value in result.attributes:
                    module, name = attribute.of(self.root)
                    setattr(module, name, value)
                return result.result
            return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.site.target, name)
