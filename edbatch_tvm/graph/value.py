"""Values of a builder: what a recorded call returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edbatch_tvm.errors import GraphError


class Value(int):
    """One output of a recorded call; pass it on as an operand of later calls of the same instance.

    A value stands for an array that is not computed yet. As a number it has ``node * stride + slot`` in its low 32
    bits and the serial number of the instance above them, so that no number that somebody types is a value. The
    result of arithmetic on such numbers might be one, or be taken for a row of data; hence a value refuses
    arithmetic, ordering, and functions of NumPy and PyTorch; only a Python float on the left of an operator computes
    before a value is asked. It can be compared for equality, hashed and pickled.
    """

    __slots__ = ()

    __array_ufunc__ = None

    @classmethod
    def __torch_function__(cls, function: Any, *_: Any) -> Any:
        raise _refusal(f"{getattr(function, '__name__', 'a function of torch')}()")


def _refusal(what: str) -> GraphError:
    return GraphError(
        f"{what} of a value of a builder",
        "a call of a cell that computes it",
        "a value stands for a result that is not computed yet",
    )


def _refuse(name: str) -> Callable[..., Any]:
    def refused(self: Value, *_: Any) -> Any:
        raise _refusal(f"{name}()")

    refused.__name__ = name
    return refused


_BINARY = "add sub mul truediv floordiv mod divmod pow matmul and or xor lshift rshift"
for _name in [
    *(f"__{prefix}{name}__" for name in _BINARY.split() for prefix in ("", "r")),
    *("__neg__", "__pos__", "__abs__", "__invert__", "__lt__", "__le__", "__gt__", "__ge__"),
    *("__float__", "__complex__", "__round__", "__trunc__", "__floor__", "__ceil__"),
]:
    setattr(Value, _name, _refuse(_name))
