"""Parts of tensors that were written one by one, read without going through the whole.

Code such as ``i, f = x.chunk(2, -1); i.sigmoid_()`` writes into parts of a tensor. ``torch.export`` makes a new tensor
for every write (``slice_scatter``) and takes the parts out of the last one. What a part is can be seen from the graph:
what was written there, or the same part of the tensor before. Then no whole tensor is copied, and a gate of a cell is
an operator on a product again.
"""

from __future__ import annotations

from typing import Any


def forward_parts(program: Any) -> None:
    """Let parts of the last dimension of an exported program's tensors be read where they were written."""
    import torch

    aten = torch.ops.aten
    graph = program.graph
    splits: dict[Any, Any] = {}
    changed = False
    for node in list(graph.nodes):
        found = _part(aten, node)
        if found is None:
            continue
        whole, low, high = found
        source, written = _origin(aten, whole, low, high)
        if written is None and source is whole:
            continue
        with graph.inserting_before(node):
            if written is not None:
                made = _in_shape(aten, graph, written, node)
            else:
                base = _in_shape(aten, graph, source, whole)
                made = None if base is None else _part_of(graph, base, node, splits)
        if made is not None:
            node.replace_all_uses_with(made)
            changed = True
    if changed:
        graph.eliminate_dead_code()
        program.graph_module.recompile()


def _origin(aten: Any, whole: Any, low: int, high: int) -> tuple[Any, Any]:
    """The tensor that has had a part first, and what was written there; None if it was there from the beginning."""
    source = whole
    while True:
        before = _through_views(aten, source)
        if before.target is not aten.slice_scatter.default:
            return source, None
        target, written, start, stop = _scatter(before)
        if start is None:
            return source, None
        if (low, high) == (start, stop):
            return source, written
        if low < stop and start < high:
            return source, None
        source = target


def _part_of(graph: Any, base: Any, node: Any, splits: dict[Any, Any]) -> Any:
    """The part of `base` that `node` is of another tensor."""
    import operator

    if node.target is operator.getitem:
        split, number = node.args
        key = base, tuple(split.args[1])
        if key not in splits:
            splits[key] = graph.call_function(split.target, (base, *split.args[1:]))
            splits[key].meta = dict(split.meta)
        made = graph.call_function(operator.getitem, (splits[key], number))
    else:
        made = graph.call_function(node.target, (base, *node.args[1:]))
    made.meta = dict(node.meta)
    return made


def _shape(node: Any) -> Any:
    return node.meta["val"].shape


def _rank(node: Any) -> int:
    return len(_shape(node))


def _part(aten: Any, node: Any) -> tuple[Any, int, int] | None:
    """The tensor that a node is a part of, along the last dimension, and which part."""
    import operator

    if node.op != "call_function":
        return None
    if node.target is aten.slice.Tensor and len(node.args) == 4:
        whole, dim, low, high = node.args
        if dim % _rank(whole) == _rank(whole) - 1 and all(type(one) is int and one >= 0 for one in (low, high)):
            return whole, low, min(high, _last(whole))
    if node.target is operator.getitem and node.args[0].target is aten.split_with_sizes.default:
        split, number = node.args
        whole, sizes = split.args[:2]
        dim = split.args[2] if len(split.args) > 2 else 0
        if dim % _rank(whole) == _rank(whole) - 1 and all(type(one) is int for one in sizes):
            low = sum(sizes[:number])
            return whole, low, low + sizes[number]
    return None


def _last(node: Any) -> Any:
    return _shape(node)[-1]


def _through_views(aten: Any, node: Any) -> Any:
    """What a node is a view of, with the same last dimension."""
    while node.target is aten.view.default and _same_last(node, node.args[0]):
        node = node.args[0]
    return node


def _same_last(one: Any, other: Any) -> bool:
    if not _rank(one) or not _rank(other):
        return False
    return type(_last(one)) is int and type(_last(other)) is int and _last(one) == _last(other)


def _scatter(node: Any) -> tuple[Any, Any, Any, Any]:
    """The tensor before a write, what was written, and where along the last dimension; None if it was elsewhere."""
    target, written, dim, start, stop = (*node.args, *(0, 0, None)[len(node.args) - 2 :])[:5]
    step = node.args[5] if len(node.args) > 5 else 1
    plain = step == 1 and type(start) is int and start >= 0 and type(stop) is int and stop >= 0
    if not plain or dim % _rank(node) != _rank(node) - 1 or type(_last(node)) is not int:
        return target, written, None, None
    return target, written, start, min(stop, _last(node))


def _in_shape(aten: Any, graph: Any, source: Any, like: Any) -> Any:
    """A tensor in the shape of another; None if that cannot be said."""
    wanted = list(_shape(like))
    if [str(extent) for extent in _shape(source)] == [str(extent) for extent in wanted]:
        return source
    sizes = like.args[1] if like.target is aten.view.default else wanted
    if not all(type(one) is int for one in wanted) and sizes is wanted:
        return None
    made = graph.call_function(aten.view.default, (source, sizes))
    made.meta = dict(like.meta)
    return made
