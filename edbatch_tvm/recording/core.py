"""The hot path of recording in C, where there is a compiler: ``native_core`` in the place of some functions of Python.

It is compiled when the package is first imported, and kept in the cache directory for later processes. What it does not
know it leaves to the Python functions that it takes the place of; where it cannot be had, these do all of it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import platform
import subprocess
import sysconfig
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from edbatch_tvm.cache_files import cache_directory, read_sealed, write_sealed
from edbatch_tvm.errors import CellError
from edbatch_tvm.recording import driver, isolation, lazy, random_state, rounds, specialise, torch_functions
from edbatch_tvm.recording.arguments import FEW, INTEGER, key_of_tensor
from edbatch_tvm.recording.cell_call import CellCall
from edbatch_tvm.recording.empty_results import NoElements
from edbatch_tvm.recording.module_attributes import Written
from edbatch_tvm.recording.outside import Outside
from edbatch_tvm.recording.recorder import Recorder
from edbatch_tvm.recording.site import Site
from edbatch_tvm.recording.specs import RowsSpec, TensorSpec, rows_of
from edbatch_tvm.recording.storages import resolved
from edbatch_tvm.recording.strided_storage import Storage
from edbatch_tvm.tvm_compat import cc

VARIABLE = "EDBATCH_RECORDING"
"""Environment variable; ``python`` leaves all of recording to Python. Read once, when this module is imported."""

_NAME = "edbatch_recording_core"
_SOURCES = Path(__file__).with_name("native_core")
_MOST_SECONDS = 120

_PLACES: tuple[tuple[Any, str, str], ...] = (
    (CellCall, "__call__", "cell_call"),
    (Recorder, "call", "call"),
    (Outside, "number", "number"),
    (torch_functions, "rows_of_values", "rows_of_values"),
    (specialise, "returned_of", "returned_of"),
    (lazy, "entered", "entered"),
    (driver, "is_now", "is_now"),
    (driver.Driver, "wait", "wait"),
    (lazy.LazyTensor, "_answer", "answer"),
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
            self._module = _loaded()
            self._compiled = _functions(self._module)
            torch_functions.join_by(self._module.join)
        except (ImportError, OSError, subprocess.SubprocessError) as error:
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
        rounds.native = random_state.native = self._module if compiled else None
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
        "Recorder": Recorder,
        "RowsSpec": RowsSpec,
        "Site": Site,
        "Storage": Storage,
        "Tensor": torch.Tensor,
        "TensorSpec": TensorSpec,
        "Written": Written,
        "FEW": FEW,
        "INDEX": key_of_tensor(torch.tensor(0)),
        "INTEGER": INTEGER,
        "argmax": torch.argmax,
        "argmin": torch.argmin,
        "float32": torch.float32,
        "is_any_autocast": torch._C._is_any_autocast_enabled,
        "is_neg": torch.Tensor.is_neg,
        "refusals": (KeyError, NoElements, CellError),
        "resolved": resolved,
        "rows_of": rows_of,
        "wrapper": lazy.wrapper,
        **isolation.STATE_FUNCTIONS,
        **{name: _IN_PYTHON[name] for name in ("answer", "call", "cell_call", "number", "wait")},
    }
    methods: dict[str, Any] = module.setup(known)
    module.know_key_sets(isolation.some_key_sets())
    names = ("rows_of_values", "returned_of", "entered", "is_now", "minibatch_ended")
    return {**methods, **{name: getattr(module, name) for name in names}}


def _loaded() -> Any:
    """The module, compiled if nobody has done so before.

    Raises
    ------
    ImportError, OSError, subprocess.SubprocessError
        If it cannot be.
    """
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise ImportError("it needs the global interpreter lock")
    path = _library_path()
    if read_sealed(path) is not None:
        return _imported(path)
    with TemporaryDirectory() as folder:
        made = Path(folder) / f"{_NAME}.so"
        _compile(made)
        try:
            write_sealed(path, made.read_bytes())
        except OSError:  # no folder to keep it in: every process compiles it
            return _imported(made)
    return _imported(path)


def _library_path() -> Path:
    digest = hashlib.sha256()
    for path in sorted(_SOURCES.iterdir()):
        digest.update(path.read_bytes())
    for part in (platform.machine(), str(sysconfig.get_config_var("SOABI")), platform.python_version()):
        digest.update(part.encode())
    return cache_directory() / f"recording-{digest.hexdigest()[:20]}.so"


def _compile(path: Path) -> None:
    compiler, include = cc.get_cc(), sysconfig.get_path("include")
    if compiler is None:
        raise FileNotFoundError("no C compiler on the PATH")
    if not (Path(include) / "Python.h").exists():
        raise FileNotFoundError(f"no Python.h in {include}")
    source = str(_SOURCES / "module.c")
    command = [compiler, "-x", "c", "-std=c11", "-O2", "-fPIC", "-shared", "-I", include, source, "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_MOST_SECONDS, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        raise OSError(errors[0] if errors else f"{compiler} failed")


def _imported(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(_NAME, path, loader=ExtensionFileLoader(_NAME, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


core = Core()
