"""Classes of the copies of a model's modules: those of the model's own, but for what elements do to attributes."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from edbatch_tvm.recording.module_attributes import KEEPER

CELL = "_edbatch_cell"
"""Name of the attribute of a copy that has what stands for its cell."""


@cache
def recording(kind: type) -> Any:
    """The class of copies of modules of class `kind`."""

    def __setattr__(self: Any, name: str, value: Any) -> None:
        keeper = vars(self).get(KEEPER)
        if keeper is not None:
            keeper.copies.sets(keeper, self, name)
        super(made, self).__setattr__(name, value)

    inherited: Any = kind.__getattr__  # type: ignore[attr-defined]
    usual = inherited is torch.nn.Module.__getattr__

    def __getattr__(self: Any, name: str) -> Any:
        own = self.__dict__
        keeper = own.get(KEEPER)
        if keeper is not None:
            carried = keeper.copies.carried.names
            if carried and (id(keeper.original), name) in carried:
                keeper.copies.fetch(keeper, self, name)
                if name in own:
                    return own[name]
        if usual:  # most often a module is looked up, and this is the last place where PyTorch looks
            module = own["_modules"].get(name) if "_modules" in own else None
            if module is not None:
                return module
        return inherited(self, name)

    made: Any = type(
        kind.__name__,
        (kind,),
        {
            "__setattr__": __setattr__,
            "__getattr__": __getattr__,
            "__module__": kind.__module__,
            "__doc__": kind.__doc__,
        },
    )
    made.__qualname__ = kind.__qualname__
    return made


@cache
def recording_cell(kind: type) -> Any:
    """The class of what stands for a submodule of class `kind` that is a cell: calling it records."""

    def __call__(self: Any, *arguments: Any, **named: Any) -> Any:
        return self.__dict__[CELL](*arguments, **named)

    base = recording(kind)
    made = type(kind.__name__, (base,), {"__call__": __call__, "forward": __call__, "__module__": kind.__module__})
    made.__qualname__ = kind.__qualname__
    return made
