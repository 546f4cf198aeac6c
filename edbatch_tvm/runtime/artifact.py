"""What the kernels of a model for a CPU were compiled to, kept so that it can be saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tvm import IRModule
from tvm.target import Target

from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.errors import EnvironmentMismatch
from edbatch_tvm.graph.spec import ValueSpec
from edbatch_tvm.tvm_compat import Array, runtime, tirx
from relay_ext.stage_cells import PATH
from schedules.cpu.link import shared_library

Attributes = Mapping[str, Mapping[str, Any]]
"""Of each kernel the attributes that say how to call it: integers, texts and lists of both."""

SYMBOL = "edbatch.symbol"
"""Attribute of a function that packs weights: what it is called in the library, where that is not its name."""


@dataclass(frozen=True, eq=False)
class Artifact:
    """What :class:`edbatch_tvm.runtime.kernels.KernelSet` takes, and what the code needs to run.

    Attributes
    ----------
    library : tvm.runtime.Executable or bytes
        The compiled kernels, or the shared library that they were loaded from.
    attributes : mapping
    target : Target
    """

    library: Any
    attributes: Attributes
    target: Target

    def shared_library(self) -> bytes:
        """The shared library.

        Raises
        ------
        EnvironmentMismatch
            If it cannot be linked here.
        """
        if isinstance(self.library, bytes):
            return self.library
        try:
            return shared_library(self.library)
        except OSError as error:
            raise EnvironmentMismatch(
                f"the kernels cannot be linked ({error.strerror or error})",
                "a C compiler such as gcc, and room in the folder for temporary files",
                "install one or set TMPDIR, then save",
            ) from None

    @cached_property
    def declarations(self) -> IRModule:
        """A module of the kernels without bodies, with their attributes."""
        return declarations(self.attributes)

    def functions(self) -> Any:
        """The compiled functions by name; a shared library is loaded first."""
        return load_library(self.library) if isinstance(self.library, bytes) else self.library


@dataclass(frozen=True, eq=False)
class HeldWeights:
    """What the kernels of a saved model held: arrays by ``kind:name``, and the specs of its weights and constants."""

    arrays: Mapping[str, Any]
    specs: Mapping[str, ValueSpec]


def attributes_of(module: IRModule) -> dict[str, dict[str, Any]]:
    """The attributes of the kernels in `module`."""
    return {
        var.name_hint: {
            str(key): plain for key, value in function.attrs.items() if (plain := _plain(value)) is not None
        }
        for var, function in module.functions.items()
    }


def with_symbols(attributes: Attributes, symbols: Mapping[str, str]) -> Attributes:
    """`attributes` with :data:`SYMBOL` of the functions that pack weights."""
    return {
        name: {**values, SYMBOL: symbols[name]} if values.get(PATH) == "pack" and name in symbols else values
        for name, values in attributes.items()
    }


def declarations(attributes: Attributes) -> IRModule:
    """A module of functions without bodies that have these attributes."""
    functions = {}
    for name, values in attributes.items():
        function = tirx.PrimFunc([], tirx.Evaluate(0))
        for key, value in values.items():
            function = function.with_attr(key, value)
        functions[name] = function
    return IRModule(functions)


def load_library(content: bytes) -> Any:
    """The kernels in a shared library. They are native code: load files of trusted origin only.

    Raises
    ------
    EnvironmentMismatch
        If the folder for temporary files does not take it.
    """
    try:
        folder = TemporaryDirectory(prefix="edbatch-model-")
    except OSError as error:
        raise _no_room(error) from None
    with folder as name:
        path = Path(name) / "library.so"
        try:
            path.write_bytes(content)
        except OSError as error:
            raise _no_room(error) from None
        # The file may go as soon as it is mapped.
        try:
            return runtime.load_module(str(path))
        except (OSError, RuntimeError) as error:
            if "failed to map segment" not in str(error):
                raise
            raise EnvironmentMismatch(
                f"no code can be loaded from the folder for temporary files, {name!r} (failed to map segment)",
                "a folder that is not mounted with 'noexec'",
                "set TMPDIR",
            ) from None


def _no_room(error: OSError) -> EnvironmentMismatch:
    return EnvironmentMismatch(
        f"the kernels cannot be written to the folder for temporary files ({error.strerror or error})",
        "room for a shared library",
        "set TMPDIR",
    )


def _plain(value: Any) -> Any:
    """`value` as JSON has it; None for what it has not."""
    if isinstance(value, tirx.IntImm):
        return int(value)
    if isinstance(value, int | str):
        return int(value) if isinstance(value, int) else str(value)
    if isinstance(value, Array | list | tuple):
        items = [_plain(item) for item in value]
        return None if None in items else items
    return None
