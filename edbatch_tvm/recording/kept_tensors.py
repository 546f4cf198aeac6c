"""What code that is tried may not do: write into tensors that were there before it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.held_objects import ChangesOthers
from edbatch_tvm.recording.lazy import LazyTensor

_MEMORY = {
    torch.Tensor.numpy,
    torch.Tensor.__array__,
    torch.Tensor.__dlpack__,
    torch.Tensor.data_ptr,
    torch.Tensor.untyped_storage,
    torch.Tensor.storage,
}


class TensorsKept(TorchDispatchMode):
    """A context in which nothing is written into a tensor, unless it was made there: an error at the end.

    Parameters
    ----------
    name : str
        Of the cell whose code is tried.
    given : object
        Tensors among its parts may be written into: the arguments.
    root : torch.nn.Module or None
        The module that the code is of.

    Raises
    ------
    ChangesOthers
        Where the tensor is no part of the module.
    """

    def __init__(self, name: str, given: Any, root: torch.nn.Module | None) -> None:
        super().__init__()
        self._name = name
        self._error: CellError | None = None
        self._of_module = set() if root is None else {one._cdata for one in _storages(_tensors_of(root))}
        # Storages by their addresses; they are held, so that no address is one of another storage later.
        self._own = {one._cdata: one for one in _storages(given)}

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        super().__exit__(kind, error, trace)
        if kind is None and self._error is not None:
            raise self._error

    def error_of(self, value: Any) -> type[CellError] | None:
        """What writing into the tensors of a value is; None where the code has made them or was given them."""
        others = [one._cdata for one in _storages(value) if one._cdata not in self._own]
        if not others:
            return None
        return CellError if self._of_module.issuperset(others) else ChangesOthers

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function._schema.is_mutable:
            for place, argument in enumerate(function._schema.arguments):
                if argument.alias_info is not None and argument.alias_info.is_write:
                    written = args[place] if place < len(args) else kwargs.get(argument.name)
                    kind = self.error_of(written)
                    if kind is not None:
                        # Raised at the end: what the code does after it may be a clearer error.
                        self._error = self._error or kind(
                            f"the code of cell {self._name!r} writes into a tensor that it has not made ({function})",
                            "code that returns what it computes",
                            "return the new value from the cell, and write it in forward",
                        )
                        return written if isinstance(written, torch.Tensor) else None
        result = function(*args, **kwargs)
        if not function.is_view:
            known = {one._cdata for one in _storages((args, kwargs))}
            self._own.update((one._cdata, one) for one in _storages(result) if one._cdata not in known)
        return result


class MemoryKept(TorchFunctionMode):
    """A context in which code gets at no tensor's memory: what others do with it, nobody sees."""

    def __init__(self, name: str, kept: TensorsKept) -> None:
        super().__init__()
        self._name = name
        self._kept = kept

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in _MEMORY:
            kind = self._kept.error_of(args[:1]) or CellError
            raise kind(
                f"the code of cell {self._name!r} takes the memory of a tensor ({function.__name__})", "tensors alone"
            )
        return function(*args, **(kwargs or {}))


def _tensors_of(root: torch.nn.Module) -> list[Any]:
    return [[vars(one), *vars(one)["_parameters"].values(), *vars(one)["_buffers"].values()] for one in root.modules()]


def _storages(value: Any) -> Iterator[torch.UntypedStorage]:
    for leaf in tree_leaves(value):
        if isinstance(leaf, torch.Tensor) and type(leaf) is not LazyTensor and leaf.layout is torch.strided:
            yield leaf.untyped_storage()
