"""Losses as cells: a label is an attribute of the node, so that a minibatch of losses is a batch as any other.

>>> import edbatch_tvm as eb                                                      # doctest: +SKIP
>>> cells = eb.losses.with_losses(Tree, loss=eb.losses.cross_entropy(5))          # doctest: +SKIP
>>> model = eb.compile(cells, weights, training=True)                             # doctest: +SKIP
>>> b = model.builder()                                                           # doctest: +SKIP
>>> instance = b.finish(b.call("loss", b.call("readout", h), label=3))            # doctest: +SKIP
>>> model([instance]).backward()["W_out"]                                         # doctest: +SKIP

A loss is one number of the dtype of what it is given. A weighted sum of losses is their cotangents: ``backward`` takes
a weight for each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import IRModule, relax
from tvm.relax import op as R

from edbatch_tvm.argument_checks import require_type
from edbatch_tvm.errors import CellError
from edbatch_tvm.tvm_compat import TensorType
from relay_ext.renaming import module_of
from relay_ext.signature import ATTRIBUTES, cell_functions

_DTYPES = ("float32", "float64")

_LINEAR = 40.0
"""From here on ``log(1 + exp(x))`` is x in float64 as well."""


def cross_entropy(classes: int, dtype: str = "float32") -> relax.Function:
    """A cell ``loss(logits, label)``: the negative logarithm of the label's softmax.

    As ``torch.nn.functional.cross_entropy(logits, label)`` for one row.

    Parameters
    ----------
    classes : int
        The operand `logits` has this many elements; the attribute `label` is below it.
    dtype : {"float32", "float64"}
        Of the logits and of the loss.

    Returns
    -------
    relax.Function
        For :func:`with_losses`.

    Raises
    ------
    CellError
        If the number of classes or the dtype is none.
    """
    shape = _shape(classes)
    if len(shape) != 1:
        raise CellError(f"{classes!r} classes", "a number")
    logits, label = _tensor("logits", shape, dtype), relax.Var("label", TensorType((), "int32"))
    return cell_of([logits, label], lambda: R.negative(R.take(R.nn.log_softmax(logits, axis=-1), label, axis=0)))


def squared_error(shape: int | Sequence[int], dtype: str = "float32") -> relax.Function:
    """A cell ``loss(prediction, target)``: the sum of the squares of ``prediction - target``.

    As ``torch.nn.functional.mse_loss(prediction, target, reduction="sum")``.

    Parameters
    ----------
    shape : int or sequence of int
        Of the operand `prediction` and of the attribute `target`: a number of elements, or a shape; ``()`` for a
        scalar.
    dtype : {"float32", "float64"}
        Of both, and of the loss.

    Returns
    -------
    relax.Function
        For :func:`with_losses`.

    Raises
    ------
    CellError
        If the shape or the dtype is none.
    """
    prediction, target = (_tensor(name, _shape(shape), dtype) for name in ("prediction", "target"))
    return cell_of([prediction, target], lambda: R.sum(R.square(prediction - target)), [target.name])


def logistic(shape: int | Sequence[int] = (), dtype: str = "float32") -> relax.Function:
    """A cell ``loss(logits, label)``: binary cross entropy of ``sigmoid(logits)``, summed over the elements.

    As ``torch.nn.functional.binary_cross_entropy_with_logits(logits, label, reduction="sum")``, but for infinite
    logits: there it is the limit, 0 or inf, where PyTorch has NaN.

    Parameters
    ----------
    shape : int or sequence of int
        Of the operand `logits` and of the attribute `label`: a number of elements, or a shape; ``()``, which is the
        default, for a scalar. A label is 0 or 1; any other integer counts as 1.
    dtype : {"float32", "float64"}
        Of the logits and of the loss.

    Returns
    -------
    relax.Function
        For :func:`with_losses`.

    Raises
    ------
    CellError
        If the shape or the dtype is none.
    """
    extents = _shape(shape)
    logits, label = _tensor("logits", extents, dtype), relax.Var("label", TensorType(extents, "int32"))

    def loss() -> Any:
        # log(1 + exp(-x)) for label 1, log(1 + exp(x)) for label 0: neither cancels.
        against = R.where(R.equal(label, relax.const(0, "int32")), logits, R.negative(logits))
        return R.sum(R.nn.softplus(against, 1.0, _LINEAR))

    return cell_of([logits, label], loss)


def with_losses(cells: IRModule, **losses: relax.Function) -> IRModule:
    """A module with the cells of another one, and losses.

    Parameters
    ----------
    cells : IRModule
    **losses
        What :func:`cross_entropy`, :func:`squared_error` and :func:`logistic` return, by the names that
        :meth:`Builder.call <edbatch_tvm.Builder.call>` takes.

    Returns
    -------
    IRModule
        `cells` is not changed.

    Raises
    ------
    CellError
        If a name is taken, or what is given is no cell.
    """
    require_type(cells, IRModule, "an IRModule of cells", CellError)
    taken = {variable.name_hint for variable in cells.functions}
    for name, function in losses.items():
        if not isinstance(function, relax.Function):
            raise CellError(
                f"loss {name!r} is a {type(function).__name__}",
                "a cell",
                "eb.losses.cross_entropy(classes) makes one",
            )
        if name in taken:
            raise CellError(f"a loss called {name!r}, as a cell is", f"another name than {', '.join(sorted(taken))}")
    made = IRModule(dict(cells.functions.items()), attrs=cells.attrs)
    made.update(module_of({name: relax.utils.copy_with_new_vars(function) for name, function in losses.items()}))
    assert set(cell_functions(made)) >= set(losses)
    return made


def cell_of(params: Sequence[Any], loss: Callable[[], Any], attributes: Sequence[str] = ()) -> relax.Function:
    """A cell of `params`, all per instance, that returns an expression of them."""
    given = {"num_input": len(params)} | ({ATTRIBUTES: list(attributes)} if attributes else {})
    builder = relax.BlockBuilder()
    with builder.function("loss", list(params), given):
        with builder.dataflow():
            made = builder.emit_output(loss())
        builder.emit_func_output(made)
    return builder.finalize()["loss"]


def _tensor(name: str, shape: tuple[int, ...], dtype: str) -> relax.Var:
    if dtype not in _DTYPES:
        raise CellError(f"a loss of dtype {dtype!r}", f"one of {', '.join(_DTYPES)}")
    return relax.Var(name, TensorType(shape, dtype))


def _shape(given: int | Sequence[int]) -> tuple[int, ...]:
    """A number of elements, or a shape, as a shape."""
    extents = (given,) if isinstance(given, int) else given
    whole = isinstance(extents, Sequence) and not isinstance(extents, str)
    if not whole or not all(isinstance(one, int) and not isinstance(one, bool) and one > 0 for one in extents):
        raise CellError(f"a loss of shape {given!r}", "a number of elements, or a shape of such numbers")
    return tuple(extents)
