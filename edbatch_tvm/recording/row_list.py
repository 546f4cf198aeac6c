"""Lists of any length as arguments of cells: what the code of a cell sees while it is exported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from edbatch_tvm.errors import CellError


class Each:
    """Stands for every tensor of a list at once; it can be stacked, or joined, and nothing else.

    Attributes
    ----------
    rows : tensor
        The tensors of the list, stacked.
    """

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows = rows

    @classmethod
    def __torch_function__(
        cls, function: Any, _types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> torch.Tensor:
        listed = arguments[0] if arguments and isinstance(arguments[0], list | tuple) else ()
        dim = (named or {}).get("dim", arguments[1] if arguments[1:] else 0)
        items = list(iter(listed))
        if function in (torch.stack, torch.cat) and items[1:] == [] and type(items[0]) is Each and dim == 0:
            rows = items[0].rows
            return rows if function is torch.stack else rows.reshape(-1, *rows.shape[2:])
        name = getattr(function, "__name__", function)
        raise CellError(f"{name}() on one tensor of a list of any length", "torch.stack or torch.cat of all of them")


class RowList(list[Any]):
    """A list of any length that holds one element, which stands for each.

    ``len`` is symbolic while a cell is exported (:mod:`relay_ext.from_torch`). Code that treats the first element or
    the last unlike the others exports something else than it computes, which is found when the two are compared.
    """

    def __init__(self, parts: Sequence[torch.Tensor], pairs: bool) -> None:
        each = [Each(rows) for rows in parts]
        super().__init__([tuple(each) if pairs else each[0]])
        self.shape = parts[0].shape

    def __getitem__(self, index: Any) -> Any:
        raise CellError(f"element {index} of a list of any length", "the same code for every element")


def row_list(parts: Sequence[torch.Tensor], pairs: bool) -> list[Any]:
    """The list whose stacked elements are `parts`; with `pairs`, a list of tuples, one tensor of each part in one."""
    if torch.compiler.is_compiling():
        return RowList(parts, pairs)
    unbound = [rows.unbind() for rows in parts]
    return list(zip(*unbound, strict=True)) if pairs else list(unbound[0])
