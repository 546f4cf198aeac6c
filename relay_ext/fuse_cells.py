"""Pass: a cell becomes one TIR function."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import tvm
from tvm import IRModule, relax, topi

from edbatch_tvm.errors import CellError
from edbatch_tvm.tvm_compat import Call, GenericConst, structural_walk, tirx
from relay_ext.share_cells import member_attribute
from relay_ext.signature import cell_functions, num_input, output_vars, weight_params

CELL = "edbatch.cell"
"""Attribute of a PrimFunc: name of the cell it computes."""

NUM_INPUT = "edbatch.num_input"
"""Attribute: the first parameters are per instance, in the order of the cell."""

NUM_OUTPUT = "edbatch.num_output"
"""Attribute: the last parameters are the outputs, in order."""

WEIGHTS = "edbatch.weights"
"""Attribute: names of the weight parameters, which stand between inputs and outputs."""


class CellParams(NamedTuple):
    """The parameters of a fused cell by what they are; `weights` with their names."""

    inputs: list[Any]
    weights: dict[Any, str]
    outputs: list[Any]


def cell_params(function: tirx.PrimFunc) -> CellParams:
    """The parameters of a cell as FuseCells left it."""
    params, inputs = list(function.params), int(function.attrs[NUM_INPUT])
    names = [str(name) for name in function.attrs[WEIGHTS]]
    end = inputs + len(names)
    return CellParams(params[:inputs], dict(zip(params[inputs:end], names, strict=True)), params[end:])


@tvm.transform.module_pass(opt_level=0, name="FuseCells")
class FuseCells:
    """Fuse the whole body of every cell into one PrimFunc over the inputs, the weights and the outputs.

    Before::

        @R.function
        def cell(x, W):
            g = R.call_tir(cls.matmul, (x, W), ...)
            h = R.call_tir(cls.sigmoid, (g,), ...)
            return h

    After::

        @T.prim_func
        def cell(x: T.Buffer((16,)), W: T.Buffer((16, 16)), h: T.Buffer((16,))):
            g = T.sblock_alloc_buffer((16,))
            ...  # the blocks of matmul, then of sigmoid

    TVM's own FuseTIR does the work, on the cell as one primitive function. Constants in the cell's body become
    weights named ``<cell>.constant<i>``.
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        fused = {name: _fuse(mod, name) for name in cell_functions(mod)}
        return IRModule(fused)


def cell_constants(mod: IRModule) -> dict[str, Any]:
    """The tensor constants in the bodies of legalized cells, by the weight name FuseCells gives them."""
    constants: dict[str, Any] = {}
    for name, function in cell_functions(mod).items():
        for position, constant in enumerate(_constants(function)):
            constants[f"{name}.constant{position}"] = constant.value
    return constants


def _constants(function: relax.Function) -> list[GenericConst]:
    found: list[GenericConst] = []

    def visit(node: Any) -> None:
        if isinstance(node, GenericConst) and not any(node.same_as(other) for other in found):
            found.append(node)

    relax.analysis.post_order_visit(function.body, visit)
    return found


@relax.expr_functor.mutator
class _ReplaceConstants(relax.PyExprMutator):
    def __init__(self, constants: list[GenericConst], params: list[relax.Var]) -> None:
        super().__init__()
        self.constants = constants
        self.params = params

    def visit_generic_const_(self, op: GenericConst) -> relax.Expr:
        for constant, param in zip(self.constants, self.params, strict=True):
            if op.same_as(constant):
                return param
        return op


def _fuse(mod: IRModule, name: str) -> tirx.PrimFunc:
    function = mod[name]
    constants = _constants(function)
    extra = [relax.Var(f"{name}.constant{i}", constant.ty) for i, constant in enumerate(constants)]
    tir_functions = {var: other for var, other in mod.functions.items() if isinstance(other, tirx.PrimFunc)}
    builder = relax.BlockBuilder(IRModule(tir_functions))
    params = [*function.params, *extra]
    body = _ReplaceConstants(constants, extra).visit_expr(function.body) if constants else function.body
    body, outputs = _distinct_outputs(builder, function, body)
    primitive = relax.Function(params, body, body.ty, is_pure=True).with_attr("Primitive", True)
    fused_var = builder.add_func(relax.utils.copy_with_new_vars(primitive), f"fused_{name}")
    arguments = [relax.Var(param.name, param.ty) for param in params]
    with builder.function("main", arguments):
        with builder.dataflow():
            result = builder.emit_output(relax.Call(fused_var, arguments))
        builder.emit_func_output(result)
    try:
        fused = relax.transform.FuseTIR()(builder.finalize())
    except tvm.error.InternalError as error:
        reason = str(error).strip().splitlines()[-1]
        raise CellError(
            f"cell {name!r} cannot be fused ({reason})",
            "operators and TIR functions made of blocks",
            "write TIR functions as @T.prim_func(s_tir=True) with T.sblock",
        ) from error
    # Functions that are not private stay beside the fused one.
    own = {var.name_hint for var in tir_functions}
    (main,) = (f for var, f in fused.functions.items() if isinstance(f, tirx.PrimFunc) and var.name_hint not in own)
    _check_calls(name, main)
    weights = [param.name for param in (*weight_params(function), *extra)]
    return _with_all_params(main, fused["main"], len(outputs)).with_attrs(
        {
            "global_symbol": name,
            CELL: name,
            NUM_INPUT: num_input(function),
            NUM_OUTPUT: len(outputs),
            WEIGHTS: weights,
            **member_attribute(function),
        }
    )


_OPAQUE = ("tvm_call_packed", "tvm_call_cpacked", "call_extern", "tvm_stack_make_array", "tvm_access_ptr", "address_of")
"""Calls that take the address of a buffer: in a batch it lies elsewhere."""


def _check_calls(name: str, function: tirx.PrimFunc) -> None:
    """Refuse calls that are given the address of a buffer, and those of functions that this process has not."""
    found: list[str] = []

    def visit(call: Any) -> None:
        called = str(getattr(call.op, "name", "")).rpartition(".")[2]
        if called == "call_pure_extern" and not hasattr(ctypes.CDLL(None), str(call.args[0]).strip('"')):
            raise CellError(
                f"cell {name!r} calls {call.args[0]}, which no library of this process has",
                "operators of Relax and TIR, or functions of the C library on numbers",
            )
        if called in _OPAQUE:
            found.append(str(call.args[0]).strip('"') if "call_" in called else called)

    structural_walk(function.body, [(Call, visit)])
    if found:
        raise CellError(
            f"cell {name!r} calls {max(found, key=lambda one: '.' in one)!r} with the addresses of its buffers",
            "operators and TIR functions that read and write elements of their buffers",
            "write it as a TIR function without calls to others",
        )


def _with_all_params(fused: tirx.PrimFunc, caller: relax.Function, outputs: int) -> tirx.PrimFunc:
    """`fused` with a parameter for every parameter of `caller`; FuseTIR leaves out those that nothing reads.

    Where only the number of variadic rows is read, it has a number as parameter instead, which their shape gives.
    """
    calls: list[relax.Call] = []
    relax.analysis.post_order_visit(caller, lambda node: calls.append(node) if isinstance(node, relax.Call) else None)
    passed = list(calls[-1].args[1].fields)
    own = dict(zip(passed, list(fused.params)[: len(passed)], strict=True))
    given = {argument: param for argument, param in own.items() if isinstance(param.ty, tirx.BufferType)}
    if len(given) == len(caller.params) and len(own) == len(given):
        return fused
    symbols = [param for param in own.values() if not isinstance(param.ty, tirx.BufferType)]
    symbols += [extent for buffer in given.values() for extent in buffer.shape if isinstance(extent, tirx.Var)]

    def buffer(param: relax.Var) -> Any:
        shape = [symbols[0] if isinstance(e, tirx.Var) and symbols else e for e in param.ty.shape.values]
        return tirx.decl_buffer(shape, str(param.ty.dtype), param.name)

    params = [given[param] if param in given else buffer(param) for param in caller.params]
    return tirx.PrimFunc([*params, *list(fused.params)[-outputs:]], fused.body, attrs=fused.attrs)


def _distinct_outputs(builder: relax.BlockBuilder, function: relax.Function, body: Any) -> tuple[Any, list[Any]]:
    """The body with a copy for every output that is a parameter or was returned before; FuseTIR needs fresh ones."""
    outputs = output_vars(function)
    params = list(function.params)
    seen: list[Any] = []
    copies = []
    for out in outputs:
        fresh = not any(out.same_as(other) for other in (*params, *seen)) and isinstance(out, relax.Var)
        seen.append(out)
        copies.append(not fresh)
    if not any(copies):
        return body, outputs
    blocks = list(body.blocks) if isinstance(body, relax.SeqExpr) else []
    bindings = []
    results: list[Any] = []
    for out, copy in zip(outputs, copies, strict=True):
        if not copy:
            results.append(out)
            continue
        call = builder.call_te(topi.identity, out, primfunc_name_hint="copy")
        var = relax.Var("copied", out.ty)
        bindings.append(relax.VarBinding(var, call))
        results.append(var)
    blocks.append(relax.BindingBlock(bindings))
    final = results[0] if len(results) == 1 else relax.Tuple(results)
    return builder.normalize(relax.SeqExpr(blocks, final)), outputs
