"""Code whose dropouts multiply with masks that are arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from edbatch_tvm.errors import CellError


@dataclass(frozen=True)
class MaskedCode:
    """Code whose last argument are the masks of its dropouts, in the order in which it calls them.

    Attributes
    ----------
    target : callable
    """

    target: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        """What `target` returns for the arguments before."""
        *given, masks = arguments
        rest = iter(masks)

        def dropped(tensor: torch.Tensor, p: float) -> torch.Tensor:
            return tensor * next(rest)

        with dropout_is(dropped):
            return self.target(*given)


@contextmanager
def dropout_is(function: Callable[[torch.Tensor, float], torch.Tensor]) -> Iterator[None]:
    """A context in which ``torch.nn.functional.dropout`` does something else where it drops anything."""
    original = F.dropout

    def dropout(input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        if not training or p == 0:
            return input
        if inplace:
            raise CellError("dropout in place in a cell", "dropout that returns a new tensor", "use inplace=False")
        return function(input, p)

    F.dropout = dropout
    try:
        yield
    finally:
        F.dropout = original
