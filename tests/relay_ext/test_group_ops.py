"""Batching and layout inside a cell: the static cells of the paper, and the rewrite itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.script import ir as I
from tvm.script import relax as R

import edbatch_tvm as eb
from edbatch_tvm.benchmarking.static_cells import PUBLISHED, static_cells
from relay_ext.group_ops import GroupOps, cell_plan
from relay_ext.legalize_cells import LegalizeCells
from relay_ext.lift_weights import lift_weights
from relay_ext.push_splits import PushSplits
from relay_ext.signature import signature_of, weights_of
from tests.golden import Golden

StaticCells = static_cells(8)


def count(mod: tvm.IRModule, name: str, op: str) -> int:
    """Calls of an operator in a cell, those on weights alone not counted."""
    function = mod[name]
    weights = set(list(function.params)[int(function.attrs["num_input"]) :])
    found = 0
    for block in function.body.blocks:
        for binding in block.bindings:
            call = binding.value
            if not isinstance(call, relax.Call):
                continue
            read = [v for v in relax.analysis.free_vars(call) if not isinstance(v, tvm.ir.GlobalVar)]
            if read and all(v in weights for v in read):
                weights.add(binding.var)
            elif call.op.name == f"relax.{op}":
                found += 1
    return found


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_more_gathers_than_published(name: str) -> None:
    declared, planned = cell_plan(StaticCells, name, planned=False), cell_plan(StaticCells, name)
    assert declared is not None
    assert planned is not None
    assert planned.gathers <= PUBLISHED[name][1]
    assert planned.gathers <= declared.gathers
    assert count(GroupOps()(StaticCells), name, "concat") == planned.gathers
    assert count(GroupOps(planned=False)(StaticCells), name, "concat") == declared.gathers


def test_plans_of_the_static_cells(golden: Golden) -> None:
    text = "\n".join(
        f"{name}: {'planned' if planned else 'declared'}\n{cell_plan(StaticCells, name, planned)}"
        for name in PUBLISHED
        for planned in (False, True)
    )
    golden("plans/static_cells.txt", text)


def test_before_and_after() -> None:
    @I.ir_module
    class Before:
        @R.function
        def cell(
            x: R.Tensor((4,), "float32"),
            W_i: R.Tensor((4, 8), "float32"),
            W_u: R.Tensor((4, 8), "float32"),
            W_o: R.Tensor((4, 8), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                a = R.matmul(x, W_i)
                b = R.matmul(x, W_u)
                c = R.matmul(x, W_o)
                i = R.sigmoid(a)
                o = R.sigmoid(c)
                u = R.tanh(b)
                v = R.multiply(i, u)
                h = R.multiply(o, v)
                R.output(h)
            return h

    @I.ir_module
    class Expected:
        @R.function
        def cell(
            x: R.Tensor((4,), "float32"),
            W_i: R.Tensor((4, 8), "float32"),
            W_u: R.Tensor((4, 8), "float32"),
            W_o: R.Tensor((4, 8), "float32"),
        ):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                packed = R.concat((W_u, W_i, W_o), axis=1)
                products = R.matmul(x, packed)
                rows = R.reshape(products, (3, 8))
                gates = R.strided_slice(rows, [0], [1], [3])
                s = R.sigmoid(gates)
                first = R.strided_slice(rows, [0], [0], [1])
                b = R.reshape(first, (8,))
                u = R.tanh(b)
                second = R.strided_slice(s, [0], [0], [1])
                i = R.reshape(second, (8,))
                v = R.multiply(i, u)
                third = R.strided_slice(s, [0], [1], [2])
                o = R.reshape(third, (8,))
                h = R.multiply(o, v)
                R.output(h)
            return h

    tvm.ir.assert_structural_equal(GroupOps()(Before)["cell"], Expected["cell"])


def test_splits_are_moved_to_the_weights() -> None:
    @I.ir_module
    class Fused:
        @R.function
        def cell(x: R.Tensor((4,), "float32"), W: R.Tensor((4, 16), "float32"), b: R.Tensor((16,), "float32")):
            R.func_attr({"num_input": 1})
            with R.dataflow():
                g = R.split(R.add(R.matmul(x, W), b), 2, axis=-1)
                y = R.multiply(R.sigmoid(g[0]), R.tanh(g[1]))
                R.output(y)
            return y

    pushed = PushSplits()(Fused)
    assert count(pushed, "cell", "split") == 0
    assert count(pushed, "cell", "matmul") == 2
    plan = cell_plan(Fused, "cell")
    assert plan is not None
    assert [group.members[0].kind for group in plan.groups] == ["matmul", "add", "sigmoid", "tanh", "multiply"]
    assert plan.gathers == 0


def test_a_body_of_another_form_is_left_alone() -> None:
    @I.ir_module
    class Tuples:
        @R.function
        def cell(x: R.Tensor((8,), "float32")):
            with R.dataflow():
                s = R.split(x, [3], axis=0)
                y = R.concat([s[1], s[0]], axis=0)
                R.output(y)
            return y

    assert cell_plan(Tuples, "cell") is None
    tvm.ir.assert_structural_equal(
        GroupOps()(Tuples), relax.transform.CanonicalizeBindings()(relax.transform.Normalize()(Tuples))
    )


def test_fewer_products_than_combine_parallel_matmul() -> None:
    """TVM's own pass joins products of one input, of matrices only; ours also those whose inputs lie side by side."""

    def products(rows: tuple[int, ...]) -> tvm.IRModule:
        builder = relax.BlockBuilder()
        x, y = (relax.Var(name, relax.TensorType((*rows, 8), "float32")) for name in "xy")
        weights = [relax.Var(f"W{i}", relax.TensorType((8, 8), "float32")) for i in range(4)]
        with builder.function("main", [x, y, *weights], attrs={"num_input": 2}):
            with builder.dataflow():
                first = [builder.emit(relax.op.matmul(x, w)) for w in weights[:2]]
                gates = [builder.emit(relax.op.tanh(one)) for one in first]
                last = [builder.emit(relax.op.matmul(g, w)) for g, w in zip(gates, weights[2:], strict=True)]
                result = builder.emit_output(relax.op.add(relax.op.add(*last), y))
            builder.emit_func_output(result)
        return builder.finalize()

    theirs = relax.transform.CombineParallelMatmul()(products((1,)))
    assert count(products((1,)), "main", "matmul") == 4
    assert count(theirs, "main", "matmul") == 3
    assert count(GroupOps()(products(())), "main", "matmul") == 2
    assert count(GroupOps()(products(())), "main", "concat") == 0


def test_packing_is_lifted_to_load_time() -> None:
    """What TVM's LiftTransformParams leaves in the cell moves no weight."""
    entry = tvm.IRModule({"main": GroupOps()(StaticCells)["lstm"].with_attr("global_symbol", "main")})
    lifted = relax.transform.LiftTransformParams()(relax.transform.CanonicalizeBindings()(entry))
    names = {var.name_hint for var in lifted.functions}
    assert names == {"main", "main_transform_params"}
    text = lifted["main"].script()
    assert text.count("R.concat(") == 1  # the gather of c and g
    assert lifted["main_transform_params"].script().count("R.concat(") > 2


@pytest.mark.parametrize("planned", [pytest.param(False, marks=pytest.mark.slow), True], ids=["declared", "planned"])
def test_grouped_cells_compute_the_same(planned: bool) -> None:
    rng = np.random.default_rng(5)
    weights = {
        name: (rng.uniform(-1, 1, spec.shape) / np.sqrt(spec.shape[0])).astype(np.float32)
        for name, spec in weights_of(StaticCells).items()
    }
    signature = signature_of(StaticCells)
    grouped = GroupOps(planned)(StaticCells)
    assert signature_of(grouped) == signature

    def run(mod: Any) -> list[list[np.ndarray]]:
        model = eb.compile(mod, weights)
        rows = np.random.default_rng(6)
        instances = []
        for cell in signature:
            b = model.builder()
            operands = [rows.uniform(-1, 1, o.spec.shape).astype(np.float32) for o in cell.operands]
            values = b.call(cell.name, *operands)
            instances.append(b.finish(list(values) if isinstance(values, tuple) else [values]))
        return [[array.copy() for array in outputs] for outputs in model(instances)]

    for name, a, b in zip(signature.names, run(StaticCells), run(grouped), strict=True):
        for left, right in zip(a, b, strict=True):
            np.testing.assert_allclose(left, right, atol=1e-5, err_msg=name)
    assert LegalizeCells()(grouped) is not None


def test_lifted_weights_are_computed_once() -> None:
    rng = np.random.default_rng(7)
    weights = {n: rng.uniform(-1, 1, s.shape).astype(np.float32) for n, s in weights_of(StaticCells).items()}
    lifted, packed = lift_weights(GroupOps()(StaticCells), weights)
    assert weights_of(lifted).keys() == packed.keys()
    products = [array for name, array in packed.items() if name.startswith("lstm.") and array.shape == (8, 32)]
    assert len(products) == 2  # of x and of h
    columns = {tuple(array[:, 8 * i]) for array in products for i in range(4)}
    assert tuple(weights["W_f"][:, 0]) in columns
    assert signature_of(lifted) == signature_of(StaticCells)
