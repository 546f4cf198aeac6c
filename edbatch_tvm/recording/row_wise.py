"""Proofs on exported graphs: that rows are treated alike, and that what holds for many rows holds for one or none."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

Graph = Any
"""A graph of ``torch.export``, in core operators."""


class _Unlike(Exception):
    """A row is treated unlike others, or it cannot be seen that it is not."""


class _Merged(NamedTuple):
    """The place of rows that lie in one dimension together with `inner` parts of each, row after row."""

    at: int
    inner: int


_TAKE_MERGED = frozenset(["mm", "addmm", "view", "_unsafe_view", "reshape"])


def treats_rows_alike(program: Any) -> bool:
    """Whether each row of the outputs depends on the same row of the inputs alone, and all in the same way.

    Parameters
    ----------
    program : ExportedProgram
        Its inputs of a dynamic dimension are rows, along that dimension.
    """
    # Where in the shape of a node its rows are; None where it has none.
    place: dict[Any, Any] = {}
    try:
        for node in program.graph.nodes:
            if node.op == "placeholder":
                value = node.meta.get("val")
                symbols = _symbols(value)
                place[node] = symbols[0] if symbols else None
            elif node.op == "output":
                outputs = node.args[0]
                return all(type(place.get(one)) is int for one in outputs) and len(outputs) > 0
            elif node.op == "get_attr":
                place[node] = None
            else:
                place[node] = _place(node, place)
                _check_place(node, place[node])
    except _Unlike:
        return False
    return False


def _is_symbol(extent: Any) -> bool:
    return isinstance(extent, torch.SymInt)


def _symbols(value: Any) -> list[int]:
    """The dimensions of a tensor whose extent depends on the number of rows."""
    extents = value.shape if isinstance(value, torch.Tensor) else ()
    return [dim for dim, extent in enumerate(extents) if _is_symbol(extent)]


def _check_place(node: Any, place: Any) -> None:
    """A tensor has the number of rows where its rows are and nowhere else: more of them would be of other shapes."""
    value = node.meta.get("val")
    place = place.at if isinstance(place, _Merged) else place
    for one in value if isinstance(value, list | tuple) else [value]:
        if isinstance(one, torch.Tensor) and _symbols(one) != ([] if place is None else [place]):
            raise _Unlike


def _nodes(arguments: Any) -> list[Any]:
    found: list[Any] = []
    torch.fx.map_arg(arguments, found.append)
    return found


def _place(node: Any, place: dict[Any, Any]) -> Any:
    if isinstance(node.meta.get("val"), torch.SymInt | torch.SymBool) or node.target is torch.ops.aten.sym_size.int:
        return "size"
    if node.target is operator.getitem:
        return place[node.args[0]]
    name = getattr(getattr(node.target, "overloadpacket", None), "__name__", "")
    rule = _RULES.get(name)
    inputs = _nodes((node.args, node.kwargs))
    if name not in _TAKE_SIZES and any(place[one] == "size" for one in inputs):
        raise _Unlike
    tensors = [one for one in inputs if place[one] != "size"]
    if name not in _TAKE_MERGED and any(isinstance(place[one], _Merged) for one in tensors):
        raise _Unlike
    if all(place[one] is None for one in tensors):
        symbols = _symbols(node.meta.get("val"))
        if name == "full" and any(place[one] == "size" for one in _nodes(node.args[1:])):
            raise _Unlike  # full of the number of rows
        if not symbols:
            return None
        if name in ("full", "zeros", "ones", "expand") and len(symbols) == 1:
            return symbols[0]
        raise _Unlike
    if rule is not None:
        return rule(node, place)
    if torch.Tag.pointwise in getattr(node.target, "tags", ()):
        return _pointwise(node, place)
    raise _Unlike


def _dims(node: Any) -> int:
    return int(node.meta["val"].dim())


def _pointwise(node: Any, place: dict[Any, Any]) -> int:
    value = node.meta["val"]
    tensors = [one for one in _nodes((node.args, node.kwargs)) if place[one] != "size"]
    places = {place[one] + value.dim() - _dims(one) for one in tensors if place[one] is not None}
    if len(places) != 1:
        raise _Unlike
    at = places.pop()
    for one in tensors:
        aligned = at - value.dim() + _dims(one)
        if place[one] is None and aligned >= 0 and one.meta["val"].shape[aligned] != 1:
            raise _Unlike
    return int(at)


def _is_rows(node: Any, place: dict[Any, Any]) -> bool:
    return place.get(node) is not None if isinstance(node, torch.fx.Node) else False


def _product(node: Any, place: dict[Any, Any]) -> Any:
    """``mm``, ``addmm`` and ``linear``: rows times a matrix."""
    left, right = (
        node.args[-2:] if len(node.args) < 3 or node.target is not torch.ops.aten.linear.default else node.args[:2]
    )
    added = [one for one in node.args if one is not left and one is not right]
    at = place[left]
    if isinstance(at, _Merged):  # every part of a row by itself
        if at.at != 0 or _is_rows(right, place) or any(_is_rows(one, place) or _dims(one) > 1 for one in added):
            raise _Unlike
        return at
    if at is None or _is_rows(right, place) or any(_is_rows(one, place) for one in added):
        raise _Unlike
    if at == _dims(left) - 1:
        raise _Unlike
    for one in added:
        if isinstance(one, torch.fx.Node) and _dims(one) > 1:
            raise _Unlike
    return int(at)


def _batched_product(node: Any, place: dict[Any, Any]) -> int:
    """``bmm``: a product for each row, or rows of matrices times matrices that are the same for all rows."""
    left, right = place[node.args[0]], place[node.args[1]]
    if (left, right) not in ((0, 0), (1, None), (None, 2)):
        raise _Unlike
    return int(left or right or 0)


def _view(node: Any, place: dict[Any, Any]) -> Any:
    source, made = node.args[0].meta["val"].shape, node.meta["val"].shape
    at = place[node.args[0]]
    if isinstance(at, _Merged):
        return _parted(made, _elements(source[: at.at]), at.inner, _elements(source[at.at + 1 :]))
    before, after = _elements(source[:at]), _elements(source[at + 1 :])
    for other, extent in enumerate(made):
        same = _is_symbol(extent) and str(extent) == str(source[at])
        if same and _elements(made[:other]) == before and _elements(made[other + 1 :]) == after:
            return other
    return _merged(source, at, made)


def _merged(source: Any, at: int, made: Any) -> _Merged:
    """Rows and dimensions after them, seen as one dimension."""
    before = _elements(source[:at])
    for other, extent in enumerate(made):
        if not _is_symbol(extent) or _elements(made[:other]) != before:
            continue
        for end in range(at + 2, len(source) + 1):
            inner = _elements(source[at + 1 : end])
            rest = _elements(source[end:]) == _elements(made[other + 1 :])
            if rest and extent.node.expr == source[at].node.expr * inner:
                return _Merged(other, inner)
    raise _Unlike


def _parted(made: Any, before: int, inner: int, after: int) -> Any:
    """Where rows are once the parts of each have dimensions of their own again."""
    for other, extent in enumerate(made):
        if not _is_symbol(extent) or _elements(made[:other]) != before:
            continue
        if len(extent.node.expr.free_symbols) == 1 and extent.node.expr.is_Symbol:
            if _elements(made[other + 1 :]) == inner * after:
                return other
        elif _elements(made[other + 1 :]) == after and extent.node.expr.as_coeff_Mul()[0] == inner:
            return _Merged(other, inner)
    raise _Unlike


def _elements(extents: Any) -> int:
    count = 1
    for extent in extents:
        if _is_symbol(extent):
            raise _Unlike
        count *= int(extent)
    return count


def _permuted(node: Any, place: dict[Any, Any]) -> int:
    dims = [dim % _dims(node) for dim in node.args[1]]
    return dims.index(place[node.args[0]])


def _transposed(node: Any, place: dict[Any, Any]) -> int:
    first, second = (dim % _dims(node) for dim in node.args[1:3])
    at = place[node.args[0]]
    return int(second if at == first else first if at == second else at)


def _unsqueezed(node: Any, place: dict[Any, Any]) -> int:
    at = place[node.args[0]]
    return int(at + (node.args[1] % _dims(node) <= at))


def _squeezed(node: Any, place: dict[Any, Any]) -> int:
    source = node.args[0]
    at = place[source]
    given = node.args[1] if len(node.args) > 1 else None
    if given is None:
        raise _Unlike
    dims = [dim % _dims(source) for dim in (given if isinstance(given, list | tuple) else [given])]
    if at in dims:
        raise _Unlike
    gone = [dim for dim in dims if source.meta["val"].shape[dim] == 1]
    return int(at - sum(dim < at for dim in gone))


def _same(node: Any, place: dict[Any, Any]) -> int:
    if any(_is_rows(one, place) for one in _nodes((node.args[1:], node.kwargs))):
        raise _Unlike
    return int(place[node.args[0]])


def _expanded(node: Any, place: dict[Any, Any]) -> int:
    source = node.args[0]
    return int(place[source] + _dims(node) - _dims(source))


def _along(argument: int, keeps: bool = True) -> Callable[[Any, dict[Any, Any]], int]:
    """Operators along dimensions that are not that of the rows."""

    def rule(node: Any, place: dict[Any, Any]) -> int:
        source = node.args[0]
        at = place[source]
        if at is None or any(_is_rows(one, place) for one in _nodes((node.args[1:], node.kwargs))):
            raise _Unlike
        given = node.args[argument] if len(node.args) > argument else node.kwargs.get("dim")
        if given is None:
            raise _Unlike
        rank = _dims(source)
        dims = {dim % rank for dim in (given if isinstance(given, list | tuple) else [given])}
        if at in dims or not dims:
            raise _Unlike
        value = node.meta["val"]
        value = value[0] if isinstance(value, list | tuple) else value
        return int(at) if keeps or value.dim() == rank else int(at - sum(dim < at for dim in dims))

    return rule


def _joined(node: Any, place: dict[Any, Any]) -> int:
    parts = node.args[0]
    places = {place[part] for part in parts}
    dim = (node.args[1] if len(node.args) > 1 else 0) % _dims(node)
    if len(places) != 1 or places == {dim}:
        raise _Unlike
    at = places.pop()
    if at is None:
        raise _Unlike
    return int(at)


def _normalised(node: Any, place: dict[Any, Any]) -> int:
    at = place[node.args[0]]
    others = _nodes(node.args[2:])
    if at is None or at >= _dims(node.args[0]) - len(node.args[1]) or any(_is_rows(one, place) for one in others):
        raise _Unlike
    return int(at)


def _looked_up(node: Any, place: dict[Any, Any]) -> int:
    if _is_rows(node.args[0], place):
        raise _Unlike
    return int(place[node.args[1]])


def _scattered(node: Any, place: dict[Any, Any]) -> int:
    """Rows written into parts of rows."""
    at = place[node.args[0]]
    if at is None or place[node.args[1]] != at or any(_is_rows(one, place) for one in _nodes(node.args[2:])):
        raise _Unlike
    if (node.args[2] if len(node.args) > 2 else 0) % _dims(node) == at:
        raise _Unlike
    return int(at)


_reduced = _along(1, keeps=False)

_RULES: dict[str, Callable[[Any, dict[Any, Any]], int]] = {
    **dict.fromkeys(("mm", "addmm", "linear"), _product),
    **dict.fromkeys(("view", "_unsafe_view", "reshape"), _view),
    **dict.fromkeys(("clone", "_to_copy", "alias", "detach", "contiguous"), _same),
    **dict.fromkeys(
        ("sum", "mean", "amax", "amin", "var", "prod", "any", "all", "argmax", "argmin", "max", "min"), _reduced
    ),
    **dict.fromkeys(("_softmax", "_log_softmax", "softmax", "log_softmax", "cumsum", "slice", "flip"), _along(1)),
    **dict.fromkeys(("split", "split_with_sizes", "topk", "sort", "index_select"), _along(1)),
    "split": _along(2),
    "split_with_sizes": _along(2),
    "topk": _along(2),
    "bmm": _batched_product,
    "select": _reduced,
    "permute": _permuted,
    "transpose": _transposed,
    "unsqueeze": _unsqueezed,
    "squeeze": _squeezed,
    "expand": _expanded,
    "cat": _joined,
    "slice_scatter": _scattered,
    "native_layer_norm": _normalised,
    "layer_norm": _normalised,
    "embedding": _looked_up,
}

_TAKE_SIZES = frozenset(["view", "_unsafe_view", "reshape", "expand", "full", "zeros", "ones"])
"""Operators that the number of rows may be an argument of."""


def same_program(dynamic: Any, static: Any, rows: int) -> bool:
    """Whether a program for any number of rows is, for `rows` rows, the one that was exported for that number."""
    number: dict[Any, int] = {}
    kept = [node for node in dynamic.graph.nodes if not _is_size(node)]
    others = list(static.graph.nodes)
    kept = [node for node in kept if not _is_check(node)]
    others = [node for node in others if not _is_check(node)]
    if len(kept) != len(others):
        return False
    place: dict[Any, int] = {node: at for at, node in enumerate(others)}

    def plain(argument: Any, names: dict[Any, int]) -> Any:
        if isinstance(argument, torch.fx.Node):
            if _is_size(argument):
                return _at(argument.meta["val"], rows)
            return ("node", names[argument])
        if isinstance(argument, torch.SymInt):
            return _at(argument, rows)
        if isinstance(argument, list | tuple):
            return [plain(item, names) for item in argument]
        if isinstance(argument, dict):
            return {name: plain(item, names) for name, item in argument.items()}
        return argument

    for at, (node, other) in enumerate(zip(kept, others, strict=True)):
        number[node] = at
        if node.op != other.op or (node.op == "call_function" and node.target is not other.target):
            return False
        if node.op in ("call_function", "output") and plain((node.args, dict(node.kwargs)), number) != plain(
            (other.args, dict(other.kwargs)), place
        ):
            return False
    return True


def _is_size(node: Any) -> bool:
    return isinstance(node.meta.get("val"), torch.SymInt | torch.SymBool) or node.target is torch.ops.aten.sym_size.int


def _is_check(node: Any) -> bool:
    return "assert" in getattr(node.target, "__name__", "")


def _at(size: Any, rows: int) -> int:
    """A size that depends on the number of rows, for a given number."""
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, rows)))
