"""A program in pieces that compile on their own: the kernels, each with what it calls, and what calls them in turn.

A kernel is called by the digest of its code, so that two kernels of one name are one kernel: names of cells, weights
and variables do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import IRModule

from edbatch_tvm.tvm_compat import Call, StringImm, make_node, structural_map, structural_walk, tirx
from relay_ext.join_model_kernels import RUN_STEPS
from relay_ext.structure_digest import structure_digest
from relay_ext.workshare_loops import DIMENSIONS

_CODE = ("tirx.noalias", "calling_conv", "tirx.is_entry_func")
"""Attributes of a function that change its code; the others say how kernels are called."""

_DIGITS = 32


@dataclass(frozen=True, eq=False)
class KernelCode:
    """A kernel, which is the function that the program calls and its loops, or a function that packs weights.

    Attributes
    ----------
    digest : str
        Of the code.
    functions : list of PrimFunc
        Called ``kernel<n>`` in calls of each other.
    names : list of str
        What the functions were called.
    sharing : str
        LLVM IR of the other functions that they call; see :class:`~relay_ext.join_model_kernels.JoinModelKernels`.
        Functions that pack call none.
    packs : bool
        Whether it packs weights. Such code is copies without end, which LLVM unrolls, so it takes as long to compile
        as the kernel if it is optimised as that is, and is no faster then.
    """

    digest: str
    functions: list[tirx.PrimFunc]
    names: list[str]
    sharing: str
    packs: bool

    @property
    def symbols(self) -> dict[str, str]:
        """What each function is called in compiled code."""
        return {name: self._symbol(number) for number, name in enumerate(self.names)}

    def module(self) -> IRModule:
        """The kernel under the names of :attr:`symbols`."""
        names = {_placeholder(number): self._symbol(number) for number in range(len(self.functions))}
        if self.packs:
            return _with_symbols(_renamed(self.functions, names))
        kernel, *others = self.functions
        sharing = tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", StringImm(self.sharing), kernel.body)
        return _with_symbols(_renamed([kernel.with_body(sharing), *others], names))

    def _symbol(self, number: int) -> str:
        return f"edbatch_{self.digest}_{number}"


def split_program(module: IRModule, sharing: str) -> tuple[list[KernelCode], IRModule]:
    """The kernels of a program, and what is left of it, which calls them by :attr:`KernelCode.symbols`.

    Parameters
    ----------
    module : IRModule
        As :class:`~relay_ext.join_model_kernels.JoinModelKernels` leaves it.
    sharing : str
        What that pass was given.
    """
    kernels = kernels_of(module, sharing)
    return kernels, without_kernels(module, symbols_of(kernels))


def kernels_of(module: IRModule, sharing: str) -> list[KernelCode]:
    """The kernels of a module that :class:`~relay_ext.workshare_loops.WorkshareLoops` left."""
    functions = {var.name_hint: function for var, function in module.functions.items()}
    kernels = []
    for name, function in functions.items():
        if function.attrs is not None and DIMENSIONS in function.attrs:
            kernels.append(_kernel({one: functions[one] for one in _called(name, functions)}, sharing))
            pack = functions.get(f"{name}_pack")
            if pack is not None:
                kernels.append(_kernel({f"{name}_pack": pack}, "", packs=True))
    return kernels


def symbols_of(kernels: Iterable[KernelCode]) -> dict[str, str]:
    """What each function of `kernels` is called in compiled code."""
    return {name: symbol for kernel in kernels for name, symbol in kernel.symbols.items()}


def without_kernels(module: IRModule, symbols: Mapping[str, str]) -> IRModule:
    """`module` without the functions that have `symbols`: it calls them by these."""

    def call(one: Any) -> Any:
        symbol = symbols.get(one.op.name_hint) if isinstance(one.op, tvm.ir.GlobalVar) else None
        return one if symbol is None else tirx.call_extern("int32", symbol, *one.args)

    return IRModule(
        {
            var: function.with_body(structural_map(function.body, (Call, call), order="post"))
            for var, function in module.functions.items()
            if var.name_hint not in symbols
        }
    )


def split_steps(program: IRModule) -> tuple[IRModule, IRModule]:
    """The function that runs the steps of a schedule, and the one that callers see, which calls it.

    Parameters
    ----------
    program : IRModule
        As :func:`without_kernels` leaves it.
    """
    functions = {var.name_hint: function for var, function in program.functions.items()}
    steps = _code(functions.pop(RUN_STEPS))
    symbol = f"edbatch_steps_{structure_digest(steps)[:_DIGITS]}"
    callers = {tvm.ir.GlobalVar(name): _code(one).with_attr("global_symbol", name) for name, one in functions.items()}
    return (
        IRModule({tvm.ir.GlobalVar(symbol): steps.with_attr("global_symbol", symbol)}),
        without_kernels(IRModule(callers), {RUN_STEPS: symbol}),
    )


def _called(name: str, functions: Mapping[str, Any]) -> list[str]:
    """`name` and the functions that it calls, these call, and so on."""
    found = [name]
    for one in found:
        used: list[Any] = []
        structural_walk(functions[one].body, (tvm.ir.GlobalVar, used.append))
        found += [name for name in dict.fromkeys(var.name_hint for var in used) if name not in found]
    return found


def _kernel(functions: Mapping[str, Any], sharing: str, packs: bool = False) -> KernelCode:
    names = {name: _placeholder(number) for number, name in enumerate(functions)}
    renamed = list(_renamed([_code(one) for one in functions.values()], names).values())
    return KernelCode(structure_digest(renamed)[:_DIGITS], renamed, list(names), sharing, packs)


def _code(function: Any) -> tirx.PrimFunc:
    """`function` with the attributes alone that change its code."""
    attributes = {name: function.attrs[name] for name in _CODE if name in function.attrs}
    return tirx.PrimFunc(function.params, function.body, function.ret_type, make_node("ir.DictAttrs", **attributes))


def _with_symbols(functions: Mapping[Any, Any]) -> IRModule:
    return IRModule({var: one.with_attr("global_symbol", var.name_hint) for var, one in functions.items()})


def _placeholder(number: int) -> str:
    return f"kernel{number}"


def _renamed(functions: Sequence[Any], names: Mapping[str, str]) -> dict[Any, Any]:
    """Functions by the variable of their new names, calls of each other among them."""
    variables = {name: tvm.ir.GlobalVar(new) for name, new in names.items()}

    def rename(var: Any) -> Any:
        return variables.get(var.name_hint, var)

    bodies = [structural_map(function.body, (tvm.ir.GlobalVar, rename)) for function in functions]
    return {
        var: function.with_body(body) for var, function, body in zip(variables.values(), functions, bodies, strict=True)
    }
