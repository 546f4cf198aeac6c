"""Modules among the arguments of a cell: ``GRU(x, h, self.W_z, self.U_r)``.

The model's own module stands for the copies that elements have. What it computes, its parameters' values aside, is part
of the key of a call, so that a module that has changed makes another cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from edbatch_tvm.errors import CellError
from edbatch_tvm.recording.module_attributes import CELL, KEEPER
from relay_ext.module_structure import module_structure

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder


class GivenModule:
    """A module among arguments, in one state; one object for each, so that they compare by identity.

    Attributes
    ----------
    module : torch.nn.Module
        The model's own.
    """

    __slots__ = ("module",)

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module


def key_of_module(recorder: Recorder, module: torch.nn.Module) -> tuple[str, GivenModule]:
    """The part of a key that stands for a module.

    Raises
    ------
    CellError
        If elements set attributes of it.
    """
    known = recorder.modules.get(id(module))
    if known is None:
        own = _own_module(module)
        given = recorder.library.given_modules
        state = own, module_structure(torch, own)
        part = "module", given.get(state) or given.setdefault(state, GivenModule(own))
        known = recorder.modules[id(module)] = module, part
    return known[1]


def _own_module(module: torch.nn.Module) -> torch.nn.Module:
    """The model's module that an element's copy stands for."""
    for one in module.modules():
        keeper: Any = vars(one).get(KEEPER)
        if keeper is not None and any(place == id(keeper.original) for place, _ in keeper.copies.carried.names):
            raise CellError(
                f"an argument of a cell is a {type(module).__name__} whose attributes forward sets",
                "a module that stays what it is",
                "list a method of the module as a cell",
            )
    own = vars(module)
    if CELL in own:
        target: torch.nn.Module = own[CELL].site.target
        return target
    return own[KEEPER].original if KEEPER in own else module
