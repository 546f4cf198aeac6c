"""Adjoint cells against PyTorch's autograd, in float64: all workloads, every rule, random cells."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tvm import IRModule, relax, tirx
from tvm.relax import op as R
from tvm.script import ir as I
from tvm.script import relax as Rx
from tvm.script import tirx as T

from edbatch_tvm.graph import Attribute, CellSignature, Operand, Signature, ValueSpec
from edbatch_tvm.models import WORKLOADS, get_workload
from relay_ext.gradients.adjoint_cells import Adjoints, Source, WeightTerm, adjoint_cells
from relay_ext.gradients.reverse import bindings_of
from relay_ext.gradients.rules import NoGradientError, short_name
from relay_ext.signature import cell_functions, input_params, output_vars, weight_params
from tests.random_cells import cells_for
from tests.relay_ext.relax_in_torch import evaluate


def check(mod: IRModule, rows: int = 3, seed: int = 0, values: Callable[..., Any] | None = None) -> Adjoints:
    """Compare the gradients of all cells with those of PyTorch, of random cotangents of all outputs.

    Once with values that the forward cells save, once with values that are computed again.
    """
    _check(adjoint_cells(mod, save=False), mod, rows, seed, values)
    adjoints = adjoint_cells(mod)
    _check(adjoints, mod, rows, seed, values)
    return adjoints


def _check(adjoints: Adjoints, mod: IRModule, rows: int, seed: int, values: Callable[..., Any] | None) -> None:
    for name, function in cell_functions(mod).items():
        generator = torch.Generator().manual_seed(seed)
        arguments = {p.name: _argument(p, rows, generator, function, values) for p in function.params}
        weights = [p.name for p in weight_params(function)]
        floats = [n for n, value in arguments.items() if value.is_floating_point()]
        for one in floats:
            arguments[one].requires_grad_()
        outputs = evaluate(function, arguments)
        cotangents = [torch.randn(out.shape, generator=generator, dtype=torch.float64) for out in outputs]
        through = [pair for pair in zip(outputs, cotangents, strict=True) if pair[0].requires_grad]
        expected = dict.fromkeys(floats)
        if through:
            found = torch.autograd.grad(
                [o for o, _ in through], [arguments[n] for n in floats], [c for _, c in through], allow_unused=True
            )
            expected = dict(zip(floats, found, strict=True))
        with torch.no_grad():
            operands, gradients = _gradients(adjoints, name, function, arguments, cotangents)
        for param, gradient in operands.items():
            _same(f"{name}: {param}", gradient, expected[param], arguments[param])
        for weight in weights:
            if weight in floats:
                _same(f"{name}: {weight}", gradients.get(weight), expected[weight], arguments[weight])


def _argument(param: Any, rows: int, generator: Any, function: Any, values: Callable[..., Any] | None) -> torch.Tensor:
    shape = [int(extent) if isinstance(extent, tirx.IntImm) else rows for extent in param.ty.shape.values]
    if str(param.ty.dtype).startswith(("int", "uint")):
        return torch.randint(0, 3, shape, generator=generator)
    if str(param.ty.dtype) == "bool":
        return torch.rand(shape, generator=generator) < 0.5
    if values is not None:
        return values(param.name, shape, generator)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _gradients(
    adjoints: Adjoints, name: str, function: Any, arguments: dict[str, Any], cotangents: list[Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The gradients of operands and of weights that an adjoint cell and its terms give for one node."""
    adjoint = adjoints.cells[name]
    returned = evaluate(adjoint.forward, {p.name: arguments[p.name] for p in adjoint.forward.params})
    assert len(cotangents) == adjoint.outputs
    given = {**arguments, **{f"d_output{place}": one for place, one in enumerate(cotangents)}}
    given |= {f"value{slot}": returned[slot] for slot in adjoint.values}
    outputs = evaluate(adjoint.function, {p.name: given[p.name] for p in adjoint.function.params})
    inputs = [arguments[p.name] for p in input_params(function)]
    rows = {
        "operand": [one for one in inputs if one.is_floating_point()],
        "attribute": [one for one in inputs if not one.is_floating_point()],
        "value": returned,
        "cotangent": cotangents,
        "output": outputs,
    }
    floats = [p.name for p in input_params(function) if arguments[p.name].is_floating_point()]
    operands = {
        param: None if place is None else outputs[place] for param, place in zip(floats, adjoint.operands, strict=True)
    }
    shapes = {p.name: arguments[p.name].shape for p in weight_params(function)}
    sums: dict[str, Any] = {}

    def rows_of(source: Source) -> Any:
        if source.kind == "joined":
            return torch.cat([rows_of(part) for part in source.parts], dim=-1)
        return rows[source.kind][source.number]

    for term in adjoint.terms:
        right = rows_of(term.right)
        left = None if term.left is None else rows_of(term.left)
        if term.kind == "product":
            left, right = (one.reshape(-1, one.shape[-1]) for one in (left, right))
            found = left.T @ right
        elif term.kind == "table":
            expression = adjoints.expressions[term.expression]
            shape = torch.empty(shapes[expression.weights[0]])[expression.part].shape
            found = torch.zeros(shape, dtype=torch.float64)
            found.index_add_(0, left.reshape(-1), right.reshape(-1, *found.shape[1:]))
        else:
            found = right
        sums[term.expression] = sums[term.expression] + found if term.expression in sums else found
    gradients: dict[str, Any] = {}
    for key, total in sums.items():
        expression = adjoints.expressions[key]
        if expression.pullback is None:
            parts = [torch.zeros(shapes[expression.weights[0]], dtype=torch.float64)]
            parts[0][expression.part] = total
        else:
            pulled = {p.name: arguments.get(p.name) for p in expression.pullback.params} | {"gradient": total}
            parts = evaluate(expression.pullback, pulled)
            view = expression.as_view(total.detach().numpy())
            if view is not None:
                np.testing.assert_array_equal(view, parts[0].detach().numpy())
        for weight, part in zip(expression.weights, parts, strict=True):
            gradients[weight] = gradients[weight] + part if weight in gradients else part
    return operands, gradients


def _same(what: str, found: Any, expected: Any, like: torch.Tensor) -> None:
    zeros = torch.zeros(like.shape, dtype=torch.float64)
    found, expected = (zeros if one is None else one.broadcast_to(like.shape) for one in (found, expected))
    scale = expected[expected.isfinite()].abs().max().item() if expected.isfinite().any() else 0.0
    np.testing.assert_allclose(
        found.detach().numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-12 * max(scale, 1e-3), err_msg=what
    )


@pytest.mark.parametrize("workload", WORKLOADS)
def test_all_workloads(workload: str) -> None:
    mod = get_workload(workload).cells(6)
    check(mod)


def test_a_weight_gets_a_product_over_nodes() -> None:
    @I.ir_module
    class Before:
        @Rx.function
        def cell(x: Rx.Tensor((3,), "float32"), W: Rx.Tensor((3, 4), "float32"), b: Rx.Tensor((4,), "float32")):
            Rx.func_attr({"num_input": 1})
            with Rx.dataflow():
                y = Rx.tanh(Rx.matmul(x, W) + b)
                Rx.output(y)
            return y

    adjoint = check(Before).cells["cell"]
    assert adjoint.operands == (0,)
    assert adjoint.terms == (
        WeightTerm("W", "product", Source("operand", 0), Source("output", 1)),
        WeightTerm("b", "sum", None, Source("output", 1)),
    )


def test_a_bias_of_two_products_needs_no_rows_of_its_own() -> None:
    @I.ir_module
    class Before:
        @Rx.function
        def cell(
            x: Rx.Tensor((3,), "float32"),
            U: Rx.Tensor((3, 4), "float32"),
            V: Rx.Tensor((3, 4), "float32"),
            b: Rx.Tensor((4,), "float32"),
        ):
            Rx.func_attr({"num_input": 1})
            with Rx.dataflow():
                y = Rx.tanh(Rx.matmul(x, U) + b) * Rx.sigmoid(Rx.matmul(x, V) + b)
                Rx.output(y)
            return y

    adjoint = check(Before).cells["cell"]
    rights = {term.expression: term.right for term in adjoint.terms if term.kind == "product"}
    sums = [term.right for term in adjoint.terms if term.kind == "sum"]
    assert set(sums) == {rights["U"], rights["V"]}
    assert len(output_vars(adjoint.function)) == 3  # the gradients of x and of both products


# Every rule -----------------------------------------------------------------------------------------------------

Build = Callable[..., Any]


def _module(build: Build, shapes: list[Any], weights: int = 0) -> IRModule:
    """One cell: operands of these shapes, of which the last `weights` are weights; ``"k"`` is the number of rows."""
    count = T.int64()
    params = []
    for place, shape in enumerate(shapes):
        dtype = "float64"
        if isinstance(shape, str):
            shape, dtype = eval(shape), "int64"
        extents = [count if extent == "k" else extent for extent in shape]
        params.append(relax.Var(f"x{place}", relax.TensorType(extents, dtype)))
    builder = relax.BlockBuilder()
    with builder.function("cell", params, attrs={"num_input": len(params) - weights}):
        with builder.dataflow():
            out = builder.emit_output(builder.emit(build(*params)))
        builder.emit_func_output(out)
    return builder.finalize()


UNARY = {
    name: getattr(R.nn if name in ("relu", "gelu", "gelu_tanh", "silu", "softplus", "leakyrelu") else R, name)
    for name in (
        *("abs", "exp", "negative", "sigmoid", "tanh", "cos", "sin", "tan", "cosh", "sinh", "square", "erf", "ceil"),
        *("floor", "round", "sign", "trunc", "asinh", "atan", "relu", "gelu", "gelu_tanh", "silu", "softplus"),
        "leakyrelu",
    )
}
WITHIN = {"log": (0.1, 9), "sqrt": (0.1, 9), "rsqrt": (0.1, 9), "acosh": (1.1, 9)} | dict.fromkeys(
    ("asin", "acos", "atanh"), (-0.9, 0.9)
)


@pytest.mark.parametrize("name", UNARY)
def test_one_tensor(name: str) -> None:
    check(_module(UNARY[name], [(2, 5)]))


@pytest.mark.parametrize("name", WITHIN)
def test_one_tensor_of_a_domain(name: str) -> None:
    low, high = WITHIN[name]

    def values(_: str, shape: list[int], generator: Any) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)

    check(_module(getattr(R, name), [(2, 5)]), values=values)


BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum", "mod", "floor_mod")


@pytest.mark.parametrize("shapes", [[(4,), (4,)], [(3, 4), (4,)], [(3, 1), (2, 1, 4)], [("k", 4), (4,)], [(), (4,)]])
@pytest.mark.parametrize("name", BINARY)
def test_two_tensors(name: str, shapes: list[Any]) -> None:
    if "k" in shapes[0]:  # an output has no rows
        check(_module(lambda x, y: R.sum(getattr(R, name)(x, y), axis=[0]), shapes))
        check(_module(lambda x, y: R.sum(getattr(R, name)(y, x), axis=[0]), shapes))
    else:
        check(_module(getattr(R, name), shapes))
    check(_module(lambda x, y: R.sum(getattr(R, name)(x, y), axis=[0]), shapes[::-1][:1] + shapes[:1], weights=1))


def _positive(_: str, shape: list[int], generator: Any) -> torch.Tensor:
    return 0.2 + torch.rand(shape, generator=generator, dtype=torch.float64)


def test_power() -> None:
    check(_module(R.power, [(3, 4), (4,)]), values=_positive)
    check(_module(lambda x: R.power(x, relax.const(3.0, "float64")), [(3, 4)]))


def _whole(_: str, shape: list[int], generator: Any) -> torch.Tensor:
    return torch.randint(-1, 2, shape, generator=generator).double()


KINKS = {
    "abs": lambda x, y: R.abs(x),
    "relu": lambda x, y: R.nn.relu(x),
    "leakyrelu": lambda x, y: R.nn.leakyrelu(x, 0.1),
    "maximum": R.maximum,
    "minimum": R.minimum,
    "clip": lambda x, y: R.clip(x, 0, 1),
    "max": lambda x, y: R.max(x, axis=[1]),
    "min": lambda x, y: R.min(x, axis=[0], keepdims=True),
    "max of all": lambda x, y: R.max(x),
    "prod": lambda x, y: R.prod(x, axis=[1]),
    "prod of all": lambda x, y: R.prod(x),
    "where": lambda x, y: R.where(R.greater(x, y), x * y, y),
    "power": lambda x, y: R.power(x, y + relax.const(1.0, "float64")),
}


@pytest.mark.parametrize("name", KINKS)
def test_ties_and_kinks_are_those_of_pytorch(name: str) -> None:
    for seed in range(3):
        check(_module(KINKS[name], [(3, 4), (3, 4)]), values=_whole, seed=seed)


VIEWS = {
    "reshape": lambda x: R.reshape(x, (4, 6)),
    "flatten": R.flatten,
    "squeeze": lambda x: R.squeeze(R.reshape(x, (2, 1, 12)), [1]),
    "expand_dims": lambda x: R.expand_dims(x, [0, 2]),
    "permute_dims": lambda x: R.permute_dims(x, [2, 0, 1]),
    "permute_dims, all": R.permute_dims,
    "broadcast_to": lambda x: R.broadcast_to(R.reshape(x, (2, 1, 12)), (5, 2, 3, 12)),
    "concat": lambda x: R.concat([x, x * x, R.reshape(x, (2, 3, 4))], axis=1),
    "stack": lambda x: R.stack([x, x * x], axis=1),
    "strided_slice": lambda x: R.strided_slice(x, [1, 2], [1, 0], [3, 3]),
    "strided_slice, steps": lambda x: R.strided_slice(x, [2], [0], [4], [2]),
    "strided_slice, back": lambda x: R.strided_slice(x, [1], [2], [-4], [-1]),
    "flip": lambda x: R.flip(x, 1),
    "repeat": lambda x: R.repeat(x, 3, 1),
    "repeat, all": lambda x: R.repeat(x, 2),
    "tile": lambda x: R.tile(x, [2, 1, 3, 1]),
    "triu": lambda x: R.triu(x, 1),
    "tril": lambda x: R.tril(x, -1),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views(name: str) -> None:
    check(_module(lambda x: R.tanh(VIEWS[name](x)), [(2, 3, 4)]))


def test_split_of_which_a_part_is_not_used() -> None:
    def build(x: Any) -> Any:
        builder = relax.BlockBuilder.current()
        parts = builder.emit(R.split(x, [1, 3], axis=1))
        return R.tanh(builder.emit(relax.TupleGetItem(parts, 1)))

    check(_module(build, [(2, 5)]))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("index", [(), (4,), (2, 2)])
def test_take(axis: int, index: tuple[int, ...]) -> None:
    check(_module(lambda x, i: R.take(x, i, axis=axis), [(3, 3, 3), str(index)]))


@pytest.mark.parametrize("index", [(), (4,), (2, 2)])
def test_rows_of_a_table_are_a_term(index: tuple[int, ...]) -> None:
    def build(i: Any, table: Any) -> Any:
        return R.take(table, i, axis=0)

    adjoints = check(_module(build, [str(index), (3, 5)], weights=1))
    (term,) = adjoints.cells["cell"].terms
    assert (term.kind, term.left, term.right) == ("table", Source("attribute", 0), Source("cotangent", 0))


REDUCTIONS = {
    "sum": R.sum,
    "mean": R.mean,
    "max": R.max,
    "min": R.min,
    "prod": R.prod,
    "variance": R.variance,
    "std": R.std,
}


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, [0], [-1], [0, 2]])
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str, axis: Any, keepdims: bool) -> None:
    check(_module(lambda x: R.tanh(REDUCTIONS[name](x, axis=axis, keepdims=keepdims)), [(2, 3, 4)]))


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("name", sorted(set(REDUCTIONS) - {"prod"}))
def test_reductions_of_rows(name: str, rows: int) -> None:
    if name == "std" and rows == 1:
        return  # 0 / 0, in PyTorch as well
    check(_module(lambda x: REDUCTIONS[name](R.tanh(x), axis=[0]), [("k", 4)]), rows=rows)


ALONG = {
    "softmax": lambda x, w: R.nn.softmax(x, 1),
    "log_softmax": lambda x, w: R.nn.log_softmax(x, -1),
    "cumsum": lambda x, w: R.cumsum(x, 1),
    "layer_norm": lambda x, w: R.nn.layer_norm(x, w, w * w, [-1], 1e-3),
    "rms_norm": lambda x, w: R.nn.rms_norm(x, w, [-1], 1e-3),
    "astype": lambda x, w: R.astype(x, "float64"),
}


@pytest.mark.parametrize("weights", [0, 1])
@pytest.mark.parametrize("name", ALONG)
def test_along_an_axis(name: str, weights: int) -> None:
    check(_module(ALONG[name], [(3, 4), (4,)], weights=weights))


PRODUCTS = [
    *([(3,), (3,)], [(3,), (3, 4)], [(2, 3), (3,)], [(2, 3), (3, 4)], [(5, 2, 3), (3, 4)], [(5, 2, 3), (5, 3, 4)]),
    *([(2, 3), (5, 3, 4)], [(3,), (5, 3, 4)], [(5, 2, 3), (3,)], [(1, 2, 3), (5, 3, 4)], [(6, 1, 2, 3), (5, 3, 4)]),
]


@pytest.mark.parametrize("shapes", PRODUCTS)
def test_products(shapes: list[Any]) -> None:
    check(_module(R.matmul, shapes))
    check(_module(R.matmul, shapes, weights=1))
    check(_module(lambda y, x: R.matmul(x, y), shapes[::-1], weights=1))


def test_a_product_of_rows_with_a_weight() -> None:
    adjoints = check(_module(lambda x, w: R.sum(R.tanh(R.matmul(x, w)), axis=[0]), [("k", 3), (3, 4)], weights=1))
    (term,) = adjoints.cells["cell"].terms
    assert (term.kind, term.left) == ("product", Source("operand", 0))


EXPRESSIONS = {
    "transposed": lambda x, w, v: R.matmul(x, R.permute_dims(w)),
    "joined": lambda x, w, v: R.matmul(x, R.concat([w, v * v], axis=1)),
    "scaled": lambda x, w, v: R.matmul(x, w * R.sigmoid(v)),
    "used twice": lambda x, w, v: R.matmul(R.tanh(R.matmul(x, w)), R.permute_dims(w)),
    "a factor and a summand": lambda x, w, v: R.matmul(x, w) + R.sum(w * v, axis=[0]),
    "a peephole": lambda x, w, v: R.matmul(x * R.max(v, axis=[1]), w),
    "a table that is multiplied": lambda x, w, v: R.matmul(R.take(w, relax.const(1, "int64"), axis=0) * x, v),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expressions_of_weights(name: str) -> None:
    check(_module(EXPRESSIONS[name], [(4,), (4, 4), (4, 4)], weights=2))


def test_outputs_that_are_operands_or_weights() -> None:
    builder = relax.BlockBuilder()
    x, w = (relax.Var(name, relax.TensorType((3,), "float64")) for name in "xw")
    with builder.function("cell", [x, w], attrs={"num_input": 1}):
        builder.emit_func_output(relax.Tuple([x, w]))
    check(builder.finalize())


def test_an_output_without_gradient() -> None:
    adjoints = check(_module(lambda x, y: R.floor(x) + R.astype(R.greater(x, y), "float64"), [(3,), (3,)]))
    assert adjoints.cells["cell"].operands[1] is None


def test_what_has_no_gradient_is_named() -> None:
    with pytest.raises(NoGradientError, match=r"operator 'collapse_sum_like' in cell 'cell'"):
        adjoint_cells(_module(lambda x, y: R.collapse_sum_like(x, y), [(3, 4), (4,)]))
    with pytest.raises(NoGradientError, match="product over variadic rows in cell 'cell'"):
        adjoint_cells(_module(lambda x: R.prod(x, axis=[0]), [("k", 4)]))


@pytest.mark.parametrize("seed", range(12))
def test_random_cells(seed: int) -> None:
    rng = random.Random(seed)
    specs = [ValueSpec(shape, "float32") for shape in ((4,), (3, 2), (5,))]
    operands = tuple(Operand(f"o{place}", rng.choice(specs), variadic=rng.random() < 0.4) for place in range(3))
    attributes = (Attribute("a", ValueSpec((), "int32"), 7),)
    outputs = tuple(rng.choice(specs) for _ in range(rng.randint(1, 3)))
    check(cells_for(Signature([CellSignature("cell", operands, attributes, outputs)]), seed, general=True), seed=seed)


def test_a_slice_of_a_slice_of_a_weight_is_a_part_of_it() -> None:
    def compute(x: Any, weight: Any) -> Any:
        rows = R.strided_slice(weight, [0], [2], [5])
        return R.matmul(x, R.strided_slice(rows, [0, 1], [1, 0], [3, 4], [1, 2]))

    found = check(_module(compute, [(2,), (6, 4)], weights=1)).expressions
    assert [one.part for one in found.values()] == [(slice(3, 5, 1), slice(0, 4, 2))]


def test_gradients_of_slices_side_by_side_are_joined() -> None:
    """No zeros, no sums; a gap has zeros, and slices that overlap are added."""

    def adjoint(*slices: tuple[int, int]) -> list[str]:
        def compute(x: Any) -> Any:
            parts = [R.sum(R.exp(R.strided_slice(x, [0], [begin], [end]))) for begin, end in slices]
            return R.multiply(*parts)

        function = adjoint_cells(_module(compute, [(6,)])).cells["cell"].function
        return [short_name(value) for _, value in bindings_of(function) if isinstance(value, relax.Call)]

    assert adjoint((4, 6), (0, 4)).count("concat") == 1
    assert "zeros" not in adjoint((4, 6), (0, 4))
    assert adjoint((4, 6), (0, 2)).count("zeros") == 1
    assert adjoint((1, 6), (0, 2)).count("zeros") == 2
