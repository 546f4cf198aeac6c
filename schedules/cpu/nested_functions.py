"""Functions of functions are computed one after the other.

Polynomials and maxima bind variables to what they are computed of. TVM's code generation for LLVM puts the value in the
place of each use of its variable, so each function in a function multiplies the work: a power of two maxima of maxima
compiled for hours. A value that is stored and loaded again ends that. LLVM keeps it in a register: the kernels of
TreeLSTM and the lattice LSTM are the same, instruction by instruction.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import IRModule

from edbatch_tvm.tvm_compat import Call, structural_map, structural_walk, tirx
from schedules.cpu.loads_first import FUNCTIONS, ValuesFirst, called

_NODES = (tirx.Max, tirx.Min, Call)


@tvm.transform.module_pass(opt_level=0, name="NestedFunctionsFirst")
class NestedFunctionsFirst:
    """Store what elementary functions, maxima and minima are computed of, where it has some of its own.

    What a condition guards stays where it is.

    Before::

        for v in T.vectorized(16):
            y[v] = T.exp(T.tanh(x[v]) * 2.0)

    After::

        inner = T.alloc_buffer((16,))
        for v in T.vectorized(16):
            inner[v] = T.tanh(x[v]) * 2.0
            y[v] = T.exp(inner[v])
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        functions = {}
        for var, function in mod.functions.items():
            if isinstance(function, tirx.PrimFunc):
                function = function.with_body(_with_inner_first(function.body))
            functions[var] = function
        return IRModule(functions, attrs=mod.attrs)


def _with_inner_first(body: Any) -> Any:
    vectorized: set[Any] = set()

    def note(loop: Any) -> None:
        if loop.kind == tirx.ForKind.VECTORIZED:
            structural_walk(loop.body, (tirx.BufferStore, vectorized.add))

    def single(store: Any) -> Any:
        return store if store in vectorized else _with_parts_first(store)

    def loop_of(loop: Any) -> Any:
        if loop.kind != tirx.ForKind.VECTORIZED or not isinstance(loop.body, tirx.BufferStore):
            return loop
        return _with_parts_first(loop.body, loop)

    structural_walk(body, (tirx.For, note))
    return structural_map(structural_map(body, (tirx.BufferStore, single)), (tirx.For, loop_of))


def _with_parts_first(store: Any, loop: Any = None) -> Any:
    """The store, or the loop that has nothing else, behind stores of what its functions are computed of."""
    parts = ValuesFirst("inner", loop)
    guarded = _guarded(store.value)

    def function(node: Any) -> Any:
        if node in guarded or not _is_function(node):
            return node
        return _with_operands(node, [parts.element(one) if _has_function(one) else one for one in _operands(node)])

    return parts.before(store, structural_map(store.value, (_NODES, function)))


def _guarded(value: Any) -> set[Any]:
    """The functions of which a condition says whether they are computed."""
    found: set[Any] = set()

    def of_branch(branch: Any) -> None:
        structural_walk(branch, (_NODES, found.add))

    def of_call(call: Any) -> None:
        for branch in call.args[1:] if called(call) == "if_then_else" else ():
            of_branch(branch)

    def of_select(select: Any) -> None:
        of_branch(select.true_value)
        of_branch(select.false_value)

    structural_walk(value, [(tirx.Select, of_select), (Call, of_call)])
    return found


def _is_function(node: Any) -> bool:
    return called(node) in FUNCTIONS if isinstance(node, Call) else "float" in str(node.ty.dtype)


def _has_function(value: Any) -> bool:
    found: list[Any] = []
    structural_walk(value, (_NODES, lambda node: found.append(node) if _is_function(node) else None))
    return bool(found)


def _operands(node: Any) -> list[Any]:
    return list(node.args) if isinstance(node, Call) else [node.a, node.b]


def _with_operands(node: Any, operands: list[Any]) -> Any:
    if all(one.same_as(known) for one, known in zip(operands, _operands(node), strict=True)):
        return node
    return Call(node.op, operands, ret_ty=node.ty) if isinstance(node, Call) else type(node)(*operands)
