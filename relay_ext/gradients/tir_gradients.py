"""Gradients of TIR functions that cells call by ``R.call_tir``: users register them by name.

TVM has a way of its own, ``R.call_tir_with_grad``, whose gradients are TE functions of one form. Here a gradient is any
expression of operators, calls of other TIR functions of the module among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import relax

from edbatch_tvm.argument_checks import require_type
from edbatch_tvm.errors import CellError
from edbatch_tvm.tvm_compat import structural_equal
from relay_ext.gradients.rules import Emitter, Gradients, NoGradientError, is_float, rule

TirGradient = Callable[..., Sequence[Any]]

_REGISTERED: dict[str, TirGradient] = {}


def register_gradient(name: str, gradient: TirGradient) -> None:
    """Give a TIR function a gradient, for cells that call it by ``R.call_tir`` and train.

    Parameters
    ----------
    name : str
        Of the function in its module. A function of this name that was given one before gets the new one.
    gradient : callable
        ``gradient(*arguments, result, d)`` returns a Relax expression for each argument: its gradient, of its shape
        and dtype, or None for one that has none, such as integers. `d` is the gradient of the result. Both are lists
        if the function has several results.

    Raises
    ------
    CellError
        If the name or the gradient is of another type. Compiling raises it as well, where a gradient does not fit its
        argument.

    Examples
    --------
    >>> def of_swish(x, y, d):                                          # doctest: +SKIP
    ...     s = R.sigmoid(x)
    ...     return [d * (y + s * (1 - y))]
    >>> eb.register_gradient("swish", of_swish)                         # doctest: +SKIP

    A gradient that is TIR as well is another function of the same module:

    >>> def of_swish(x, y, d):                                          # doctest: +SKIP
    ...     return [R.call_tir(Cells.get_global_var("swish_gradient"), (x, d), x.ty)]
    """
    require_type(name, str, "the name of a TIR function", CellError)
    if not callable(gradient):
        raise CellError(f"gradient of {name!r} is a {type(gradient).__name__}", "a function")
    _REGISTERED[name] = gradient


@rule("call_tir")
def _call_tir(emit: Emitter, call: Any, result: Any, g: Any) -> Gradients:
    name = str(call.args[0].name_hint)
    if name not in _REGISTERED:
        raise NoGradientError(
            f"the gradient of TIR function {name!r}",
            "a function that has one",
            f"edbatch_tvm.register_gradient({name!r}, function) gives it one",
        )
    arguments = list(call.args[1].fields) if isinstance(call.args[1], relax.Tuple) else [call.args[1]]
    y, d = result, g
    if isinstance(g, list):
        y = [emit(relax.TupleGetItem(result, place)) for place in range(len(g))]
        d = [emit.full(one, 0.0) if own is None else emit(own) for one, own in zip(y, g, strict=True)]
    found = list(_REGISTERED[name](*arguments, y, d))
    if len(found) != len(arguments):
        raise CellError(f"{len(found)} gradients of TIR function {name!r}", f"{len(arguments)}, one for each argument")
    own = [_fitting(emit, name, place, *pair) for place, pair in enumerate(zip(arguments, found, strict=True))]
    rest = [None] * (len(call.args) - 2)
    return [None, own if isinstance(call.args[1], relax.Tuple) else own[0], *rest]


def _fitting(emit: Emitter, name: str, place: int, argument: Any, gradient: Any) -> Any:
    """A gradient as a variable; an error if it is not of the type of its argument."""
    if gradient is None or not is_float(argument):
        return None
    made = emit(gradient)
    if not structural_equal(made.ty, argument.ty):
        raise CellError(f"gradient {place} of TIR function {name!r} is {made.ty}", f"{argument.ty}, as the argument is")
    return made
