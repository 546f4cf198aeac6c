"""The builder's work in C, where it can be had: recording calls, and graphs with all that the first merge asks for.

``builder_core`` has the code. It leaves to Python what it does not know and all errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edbatch_tvm.c_extension import load_extension
from edbatch_tvm.find_native import find_native
from edbatch_tvm.graph.cell_recorders import CellRecorders
from edbatch_tvm.graph.instance import InstanceGraph
from edbatch_tvm.graph.spec import CellSignature, Signature
from edbatch_tvm.graph.value import Value

PART = "build instances"
"""The name of this part in :mod:`edbatch_tvm.find_native`."""


class NativeBuilder:
    """The compiled functions.

    Raises
    ------
    ImportError, OSError
        If there is no compiler for them.
    """

    def __init__(self) -> None:
        self._core = load_extension("edbatch_builder_core", Path(__file__).with_name("builder_core"), "builder")
        self._core.setup(InstanceGraph, Value, np.integer)

    def recording(self, signature: Signature) -> Any:
        """What records the calls of one instance after the other."""
        recorders = CellRecorders(signature)
        return self._core.recording(self._cells(signature), signature, recorders.arrange, recorders.attribute_array)

    def instances(
        self,
        signature: Signature,
        arrays: Sequence[np.ndarray],
        attributes: Mapping[tuple[int, str], np.ndarray],
        scalar_output: bool,
        merged: bool,
    ) -> Any:
        """The instances of a minibatch that is not checked; None if Python is to find or refuse them.

        Parameters
        ----------
        signature : Signature
        arrays : sequence of array
            ``node_type``, ``operand_ptr``, ``operand_value``, ``outputs``, ``node_ptr`` and ``output_ptr``: vectors of
            int32, the first of int16.
        attributes : mapping
            Rows by type id and name.
        scalar_output : bool
            Of all instances.
        merged : bool
            Whether one checked graph of all is wanted, not a list.
        """
        rows = []
        for key, dtype, shape in signature.attribute_columns:
            array = attributes.get(key)
            if array is not None and (array.dtype != dtype or array.shape[1:] != shape):
                return None
            rows.append(np.ascontiguousarray(array) if array is not None else None)
        cells, arrays = self._cells(signature), list(map(np.ascontiguousarray, arrays))
        return self._core.instances(cells, signature, scalar_output, merged, *arrays, tuple(rows))

    def assembled(
        self, nodes: int, groups: Sequence[tuple[int, np.ndarray, Sequence[tuple[np.ndarray, int, np.ndarray | None]]]]
    ) -> list[np.ndarray] | None:
        """The arrays ``node_type``, ``operand_ptr`` and ``operand_value`` of the calls of each cell.

        Parameters
        ----------
        nodes : int
        groups : sequence
            Of each cell the type id, the numbers of its nodes, and what they read: first values, outputs and counts,
            as in `edbatch_tvm.models.minibatch_arrays`.

        Returns
        -------
        list of array or None
            None where the groups do not have each node once.
        """
        given = tuple(
            (
                type_id,
                np.ascontiguousarray(own, np.int32),
                tuple(
                    (
                        np.ascontiguousarray(first, np.int32),
                        None if counts is None else np.ascontiguousarray(counts, np.int32),
                        outputs,
                    )
                    for first, outputs, counts in reads
                ),
            )
            for type_id, own, reads in groups
        )
        found = self._core.assemble(nodes, given)
        if found is None:
            return None
        return [np.frombuffer(part, dtype) for part, dtype in zip(found, (np.int16, np.int32, np.int32), strict=True)]

    def _cells(self, signature: Signature) -> Any:
        kept: Any = signature.__dict__.get("native_cells")
        if kept is None:
            cells = tuple(_cell(signature, cell) for cell in signature)
            kept = self._core.cells(signature.stride, repr(signature.names).encode(), cells)
            signature.__dict__["native_cells"] = kept
        return kept


def _cell(signature: Signature, cell: CellSignature) -> tuple[Any, ...]:
    """A cell as the compiled code takes it."""
    return (
        cell.name,
        tuple(signature.arena(spec) for spec in cell.outputs),
        tuple((signature.arena(operand.spec), operand.variadic) for operand in cell.operands),
        tuple(
            (
                attribute.name,
                ord(np.dtype(attribute.spec.dtype).kind),
                np.dtype(attribute.spec.dtype).itemsize,
                attribute.spec.size,
                not attribute.spec.shape,
                -1 if attribute.bound is None else attribute.bound,
            )
            for attribute in cell.attributes
        ),
    )


def load() -> NativeBuilder:
    """The compiled functions, compiled if this machine has none yet.

    Raises
    ------
    ImportError, OSError
        If there is no compiler for them.
    """
    return NativeBuilder()


def native_builder() -> NativeBuilder | None:
    """The compiled functions, or None."""
    found: NativeBuilder | None = find_native(PART)
    return found


KEPT: Mapping[str, Any] = {"i": np.int64, "u": np.int64, "f": np.float64, "b": np.bool_}
"""As what the rows of scalar attributes are kept, by the kind of their dtype."""


def kept_rows(cell: CellSignature, attributes: list[np.ndarray]) -> tuple[Any, ...]:
    """The rows of the attributes of a cell as the compiled code keeps them: arrays of scalars, else lists."""
    kept: list[Any] = []
    for attribute, rows in zip(cell.attributes, attributes, strict=True):
        dtype = np.dtype(attribute.spec.dtype)
        wanted = KEPT.get(dtype.kind)
        fits = wanted is not None and not (dtype.kind == "f" and dtype.itemsize not in (4, 8))
        fits = fits and not (dtype == np.uint64 and len(rows) and int(rows.max()) > np.iinfo(np.int64).max)
        kept.append(np.ascontiguousarray(rows, wanted) if fits and not attribute.spec.shape else list(rows))
    return tuple(kept)
