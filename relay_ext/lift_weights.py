"""Weights computed from weights, once, at load: TVM's parameter lifting over all cells of a module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import IRModule, relax

from edbatch_tvm.tvm_compat import runtime, structural_map
from relay_ext.signature import cell_functions, output_vars, weight_params

_TRANSFORM = "_transform_params"


def lift_weights(mod: IRModule, weights: Mapping[str, np.ndarray]) -> tuple[IRModule, dict[str, np.ndarray]]:
    """Take what depends on weights alone out of the cells of `mod`, and compute it.

    Parameters
    ----------
    mod : IRModule
    weights : mapping of str to array

    Returns
    -------
    mod : IRModule
        Cells over the weights below; a cell that computes nothing from weights alone keeps its own.
    weights : dict of str to array
        Those that the cells use, new ones named ``<cell>.lifted<i>``.
    """
    result, transforms = _lifted(mod)
    computed = dict(weights)
    for name, values in _compute(transforms, mod, weights).items():
        for position, value in enumerate(values):
            computed[f"{name}.lifted{position}"] = value.numpy()
    used = {param.name for function in cell_functions(result).values() for param in weight_params(function)}
    return result, {name: array for name, array in computed.items() if name in used}


@tvm.transform.module_pass(opt_level=0, name="LiftWeights")
@dataclass(frozen=True)
class LiftWeights:
    """Take what depends on weights alone out of the cells; :func:`lift_weights` also computes it.

    Before::

        def cell(x, W_i, W_o):
            W = R.concat([W_i, W_o], axis=1)
            g = R.matmul(x, W)

    After::

        def cell(x, lifted0):                   # the weight "cell.lifted0"
            g = R.matmul(x, lifted0)
    """

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        return _lifted(mod)[0]


def _lifted(mod: IRModule) -> tuple[IRModule, dict[str, relax.Function]]:
    """The cells over lifted weights, and for each that has some the function that computes them."""
    functions = dict(mod.functions.items())
    transforms: dict[str, relax.Function] = {}
    for name, function in cell_functions(mod).items():
        if not _has_work(function):
            continue
        entry = IRModule({"main": function.with_attr("global_symbol", "main")})
        lifted = relax.transform.LiftTransformParams()(relax.transform.CanonicalizeBindings()(entry))
        transform = lifted["main" + _TRANSFORM]
        sources = _unchanged(transform, [param.name for param in weight_params(function)])
        names = [source or f"{name}.lifted{i}" for i, source in enumerate(sources)]
        functions[mod.get_global_var(name)] = _renamed(lifted["main"], names).with_attr("global_symbol", name)
        transforms[name] = transform.with_attr("global_symbol", name + _TRANSFORM)
    return IRModule(functions, attrs=mod.attrs), transforms


def _has_work(function: relax.Function) -> bool:
    """Whether `function` computes something from weights alone, but no output: TVM's pass breaks on such outputs."""
    known = set(weight_params(function))
    work = False
    for block in function.body.blocks if isinstance(function.body, relax.SeqExpr) else []:
        for binding in block.bindings:
            read = [v for v in relax.analysis.free_vars(binding.value) if not isinstance(v, tvm.ir.GlobalVar)]
            if read and all(v in known for v in read):
                known.add(binding.var)
                work = True
    return work and not any(out in known for out in output_vars(function))


def _unchanged(transform: relax.Function, names: list[str]) -> list[str | None]:
    """For each result of a transform, the name of the weight it is, or None for a computed one."""
    taken: dict[Any, str] = {}
    values: dict[Any, Any] = {}
    (given,) = transform.params
    for block in transform.body.blocks:
        for binding in block.bindings:
            values[binding.var] = binding.value
            if isinstance(binding.value, relax.TupleGetItem) and binding.value.tuple_value.same_as(given):
                taken[binding.var] = names[int(binding.value.index)]
    results = transform.body.body
    while isinstance(results, relax.Var):
        results = values[results]
    return [taken.get(field) for field in results.fields]


def _renamed(function: relax.Function, names: list[str]) -> relax.Function:
    """`function` with its weight parameters called `names`."""
    new = {var: relax.Var(name, var.ty) for name, var in zip(names, weight_params(function), strict=True)}
    renamed: relax.Function = structural_map(function, (relax.Var, lambda var: new.get(var, var)))
    return renamed


def _compute(
    transforms: dict[str, relax.Function], mod: IRModule, weights: Mapping[str, np.ndarray]
) -> dict[str, list[Any]]:
    """Run the transforms on this machine's CPU."""
    if not transforms:
        return {}
    entry = IRModule({name + _TRANSFORM: function for name, function in transforms.items()})
    machine = relax.VirtualMachine(tvm.compile(entry, target="llvm"), tvm.cpu())
    results = {}
    for name in transforms:
        given = [runtime.tensor(weights[param.name]) for param in weight_params(mod[name])]
        results[name] = list(machine[name + _TRANSFORM](given))
    return results
