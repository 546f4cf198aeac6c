"""Exported programs in core operators, without the repeated parts of PyTorch's own decomposition.

``ExportedProgram.run_decompositions`` looks for composite operators among all that there are, in every call, and copies
the history of every node. The table is the same in every call, and nobody reads the history.

Then it registers for each of some 500 composite operators what this does anyway; without that, operators are decomposed
that :func:`decompositions` replaces. To register one kernel after the other takes nine tenths of the time. Here the
tables of kernels that this leaves are kept, and put in place as a whole from the second time on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

from relay_ext.forwarded_parts import forward_parts
from relay_ext.torch_decompositions import decompositions

_SPLIT = "_split_decomp_table_to_cia_and_python_decomp"
_OVERRIDE = "_override_composite_implicit_decomp"
"""Functions of PyTorch; where it has none of these names, it is left as it is."""

_ours = threading.local()


def in_core_operators(program: Any) -> Any:
    """An exported program, decomposed by :func:`decompositions`."""
    for node in program.graph.nodes:
        node.meta.pop("from_node", None)
    with _replaced(_SPLIT, _split_once), _replaced(_OVERRIDE, _override_at_once):
        decomposed = program.run_decompositions(_table())
    forward_parts(decomposed)
    return decomposed


@contextmanager
def failures_unprinted() -> Iterator[None]:
    """A context in which ``torch.export`` does not print the graph of an attempt that failed."""
    from torch.export import _trace

    module: Any = _trace
    module.print = lambda *_given, **_named: None
    try:
        yield
    finally:
        del module.print


def composite_operators() -> tuple[dict[Any, Any], dict[Any, Any], Callable[[Any], Any]]:
    """What :func:`in_core_operators` decomposes, for who traces himself.

    Returns
    -------
    composite : dict
        Composite operators and what decomposes each.
    others : dict
        Other operators.
    in_place : callable
        Makes a context in which PyTorch decomposes the composite operators that it is given by these functions.
    """
    from torch.export import exported_program

    composite, others = _parts(getattr(exported_program, _SPLIT))
    return composite, others, partial(_override_at_once, getattr(exported_program, _OVERRIDE))


@contextmanager
def _replaced(name: str, function: Any) -> Iterator[None]:
    """Let a function of PyTorch's decomposition be `function` of it and its argument, in this thread."""
    from torch.export import exported_program

    original = getattr(exported_program, name, None)
    if original is None:
        yield
        return

    def replacement(argument: Any) -> Any:
        if not getattr(_ours, "decomposes", False):  # another thread
            return original(argument)
        return function(original, argument)

    outer = getattr(_ours, "decomposes", False)
    setattr(exported_program, name, replacement)
    _ours.decomposes = True
    try:
        yield
    finally:
        _ours.decomposes = outer
        setattr(exported_program, name, original)


def _split_once(original: Any, _table: Any) -> Any:
    """Let PyTorch remember which operators of the table are composite."""
    return tuple(part.copy() for part in _parts(original))


@cache
def _table() -> dict[Any, Any]:
    """What :func:`decompositions` returns, with all that it would find out when it is read."""
    return dict(decompositions())


@cache
def _parts(split: Any) -> tuple[dict[Any, Any], ...]:
    """The table, split into composite operators and others."""
    return tuple(split(_table().copy()))


class _Overridden:
    """The kernels of composite operators before and after PyTorch has registered others.

    Attributes
    ----------
    of : dict
        The operators, and what decomposes each.
    before, after : dict of operator to dict
        Its kernels in Python, by dispatch key.
    fakes : dict
        What computes an operator's results without elements.
    """

    def __init__(self, original: Any, of: Mapping[Any, Any]) -> None:
        from torch._subclasses.fake_impls import op_implementations_dict as fakes

        self.of = dict(of)
        self.before = {operator: dict(operator.py_kernels) for operator in of}
        known = dict(fakes)
        with original(of):
            self.after = {operator: dict(operator.py_kernels) for operator in of}
            self.fakes = {operator: fake for operator, fake in fakes.items() if operator not in known}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The kernels afterwards, meanwhile."""
        from torch._subclasses.fake_impls import op_implementations_dict as fakes

        try:
            fakes.update(self.fakes)
            self._put(self.after)
            yield
        finally:
            self._put(self.before)
            for operator in self.fakes:
                fakes.pop(operator, None)

    def _put(self, kernels: Mapping[Any, dict[Any, Any]]) -> None:
        for operator, own in kernels.items():
            operator.py_kernels.clear()
            operator.py_kernels.update(own)
            operator._dispatch_cache.clear()

    def holds(self, of: Mapping[Any, Any]) -> bool:
        """Whether it is about these operators, and nobody has registered anything else for them since."""
        from torch._subclasses.fake_impls import op_implementations_dict as fakes

        if of.keys() != self.of.keys() or any(of[operator] is not self.of[operator] for operator in of):
            return False
        if any(operator in fakes for operator in self.fakes):
            return False
        return all(operator.py_kernels == self.before[operator] for operator in of)


_KEPT: list[_Overridden] = []
"""The last one, if there was one."""


def _override_at_once(original: Any, of: Mapping[Any, Any]) -> Any:
    """What PyTorch's function does, in one step."""
    try:
        if not _KEPT or not _KEPT[0].holds(of):
            _KEPT[:] = [_Overridden(original, of)]
        return _KEPT[0].in_place()
    except (AttributeError, ImportError, TypeError):  # another release of PyTorch, whose tables look different
        return original(of)
