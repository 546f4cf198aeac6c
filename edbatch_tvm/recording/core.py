"""The hot path of recording in C, where there is a compiler: ``native_core`` in the place of some functions of Python.

It is compiled when the package is first imported, and kept in the cache directory for later processes. What it does not
know it leaves to the Python functions that it takes the place of; where it cannot be had, these do all of it.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch

from edbatch_tvm.c_extension import load_extension
from edbatch_tvm.errors import CellError
from edbatch_tvm.recording import (
    driver,
    isolation,
    lazy,
    random_state,
    recorded_views,
    rounds,
    row_calls,
    specialise,
    specs,
    strided_storage,
    torch_functions,
    watched_objects,
)
from edbatch_tvm.recording.arguments import FEW, INTEGER, key_of_tensor
from edbatch_tvm.recording.cell_call import CellCall
from edbatch_tvm.recording.empty_results import NoElements
from edbatch_tvm.recording.fused_rows import RowOperation, fused_node
from edbatch_tvm.recording.module_attributes import Written
from edbatch_tvm.recording.outside import Outside
from edbatch_tvm.recording.recorded_parameters import RecordedParameter
from edbatch_tvm.recording.recorder import Recorder
from edbatch_tvm.recording.rows import RowByRow
from edbatch_tvm.recording.site import Site
from edbatch_tvm.recording.specs import RowsSpec, TensorSpec, rows_of, spec_of
from edbatch_tvm.recording.state_addresses import read_natively
from edbatch_tvm.recording.storages import resolved, rows_in
from edbatch_tvm.recording.strided_storage import Storage
from edbatch_tvm.recording.value_tables import Table

VARIABLE = "EDBATCH_RECORDING"
"""Environment variable; ``python`` leaves all of recording to Python. Read once, when this module is imported."""

_NAME = "edbatch_recording_core"
_SOURCES = Path(__file__).with_name("native_core")

_PLACES: tuple[tuple[Any, str, str], ...] = (
    (CellCall, "__call__", "cell_call"),
    (Recorder, "call", "call"),
    (Recorder, "settle", "settle"),
    (Outside, "number", "number"),
    (torch_functions, "rows_of_values", "rows_of_values"),
    (specialise, "returned_of", "returned_of"),
    (row_calls, "returned_of", "returned_of"),
    (lazy, "entered", "entered"),
    (driver, "is_now", "is_now"),
    (driver.Driver, "wait", "wait"),
    (lazy.LazyTensor, "_answer", "answer"),
    (RecordedParameter, "__getitem__", "row_of_parameter"),
    (lazy.LazyTensor, "__torch_function__", "torch_function"),
)
"""What has the functions, their names there, and the names of the compiled ones."""

_IN_PYTHON = {key: vars(owner)[name] for owner, name, key in _PLACES}


class Core:
    """The compiled functions, and whether they are in use.

    Attributes
    ----------
    reason : str
        Why there are none; "" if there are.
    in_use : bool
    """

    def __init__(self) -> None:
        self._compiled: dict[str, Any] = {}
        self._module: Any = None
        self.reason = ""
        self.in_use = False
        if os.environ.get(VARIABLE) == "python":
            self.reason = f"{VARIABLE}=python"
            return
        try:
            self._module = load_extension(_NAME, _SOURCES, "recording")
            self._compiled = _functions(self._module)
            torch_functions.join_by(self._module.join)
        except (ImportError, OSError) as error:
            lines = str(error).strip().splitlines()
            self.reason = lines[0] if lines else type(error).__name__
            logging.getLogger(__name__).warning("no compiled core, so Python records calls of cells: %s", self.reason)
            return
        self.use(True)

    def use(self, compiled: bool) -> None:
        """Let the compiled functions be in use, or those of Python."""
        if compiled and not self._compiled:
            raise ImportError(self.reason)
        functions = self._compiled if compiled else _IN_PYTHON
        for owner, name, key in _PLACES:
            setattr(owner, name, functions[key])
        rounds.native = random_state.native = watched_objects.native = self._module if compiled else None
        if self._module is not None:
            self._module.use_joins(compiled)
        self.in_use = compiled

    def minibatch_ended(self) -> None:
        """Let go what the tensors that are used again held."""
        if self.in_use:
            self._compiled["minibatch_ended"]()


def _functions(module: Any) -> dict[str, Any]:
    """The functions of the module, which gets to know what it needs of this package."""
    known: dict[str, Any] = {
        "CellCall": CellCall,
        "Driver": driver.Driver,
        "LazyTensor": lazy.LazyTensor,
        "Outside": Outside,
        "RecordedParameter": RecordedParameter,
        "Recorder": Recorder,
        "RowByRow": RowByRow,
        "RowOperation": RowOperation,
        "RowsSpec": RowsSpec,
        "Site": Site,
        "Storage": Storage,
        "Table": Table,
        "Tensor": torch.Tensor,
        "TensorSpec": TensorSpec,
        "Written": Written,
        "ASKED": lazy.ASKED,
        "FEW": FEW,
        "GEOMETRIES": recorded_views.GEOMETRIES,
        "INDEX": key_of_tensor(torch.tensor(0)),
        "INTEGER": INTEGER,
        "OPERATORS": lazy.OPERATORS,
        "SPECS": specs.SPECS,
        "VIEWS": lazy.VIEWS,
        "argmax": torch.argmax,
        "argmin": torch.argmin,
        "aten_cat": torch.ops.aten.cat.default,
        "at_index": recorded_views.at_index,
        "fused_node": fused_node,
        "flattened": strided_storage.flattened,
        "float32": torch.float32,
        "float64": torch.float64,
        "is_any_autocast": torch._C._is_any_autocast_enabled,
        "is_neg": torch.Tensor.is_neg,
        "refusals": (KeyError, NoElements, CellError),
        "pick": strided_storage.pick,
        "resolved": resolved,
        "setitem": torch.Tensor.__setitem__,
        "rows_in": rows_in,
        "rows_of": rows_of,
        "spec_of": spec_of,
        "torch_function": _IN_PYTHON["torch_function"].__func__,
        "wrapper": lazy.make_wrapper,
        "guard": lazy.guard,
        **isolation.STATE_FUNCTIONS,
        **{name: _IN_PYTHON[name] for name in ("answer", "call", "cell_call", "number", "row_of_parameter", "wait")},
    }
    methods: dict[str, Any] = module.setup(known)
    read_natively(module)
    names = ("rows_of_values", "returned_of", "entered", "is_now", "minibatch_ended", "torch_function")
    return {**methods, **{name: getattr(module, name) for name in names}}


core = Core()
