"""Whether a traced program computes what its module computes for no variadic row and for one.

A program is traced for two rows and more. Code that asks whether there is a row, or just one (``if len(rows) == 0``,
``max(len(rows), 1)``), gets the answer for several then, and what it does for the others is not in the program.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any


def differs_for_few(
    torch: Any,
    module: Any,
    program: Any,
    arguments: tuple[Any, ...],
    shapes: tuple[Any, ...],
    traced: Callable[[tuple[Any, ...]], Any],
) -> int | None:
    """The number of rows for which a program is not what its module computes; None if there is none.

    Parameters
    ----------
    torch : module
    module : torch.nn.Module
    program : ExportedProgram or TracedProgram
    arguments : tuple
        Examples of the arguments of ``forward``, with tensors in the place of integers.
    shapes : tuple
        What ``torch.export`` was told about dimensions.
    traced : callable
        Makes the program for arguments of these very shapes; None if it cannot be traced. It is asked where the results
        differ, since PyTorch's kernels may differ from the operators that they are taken apart into.
    """
    for count in (0, 1):
        few = _with_rows(torch, arguments, shapes, count)
        leaves = torch.utils._pytree.tree_leaves(few)
        wanted = _of_module(torch, module, few)
        if wanted is None:  # an error: nothing is asked of the cell
            continue
        found = _of_program(torch, program, leaves)
        if found is not None and _equal(torch, found, wanted):
            continue
        alone = traced(few)
        wanted = None if alone is None else _of_program(torch, alone, leaves)
        if wanted is not None and (found is None or not _equal(torch, found, wanted)):
            return count
    return None


def _with_rows(torch: Any, argument: Any, shape: Any, count: int) -> Any:
    """An argument with `count` rows wherever there is any number of them."""
    if isinstance(argument, torch.Tensor):
        return argument.narrow(next(iter(shape)), 0, count).clone() if shape else argument.clone()
    if isinstance(argument, dict):
        return {key: _with_rows(torch, argument[key], shape[key] if shape else None, count) for key in argument}
    if isinstance(argument, tuple | list):
        parts = [
            _with_rows(torch, part, shape[place] if shape and place < len(shape) else None, count)
            for place, part in enumerate(argument)
        ]
        named = hasattr(argument, "_fields")
        return type(argument)(*parts) if named else type(argument)(parts)
    return argument


def _of_module(torch: Any, module: Any, arguments: tuple[Any, ...]) -> list[Any] | None:
    """The tensors that the module returns; None if it raises an error."""
    buffers = {path: buffer.clone() for path, buffer in module.named_buffers()}
    try:
        with torch.no_grad():
            result = torch.func.functional_call(module, buffers, arguments)
    except Exception:
        return None
    leaves = torch.utils._pytree.tree_leaves(result)
    return leaves if all(isinstance(leaf, torch.Tensor) for leaf in leaves) else None


def _of_program(torch: Any, program: Any, leaves: Sequence[Any]) -> list[Any] | None:
    """The tensors that the program returns; None if it cannot run, or values have other dimensions than it says.

    ``squeeze`` takes away the dimension of one row, which a program for any number of them keeps.
    """

    class Interpreter(torch.fx.Interpreter):
        def run_node(self, node: Any) -> Any:
            value, traced = super().run_node(node), node.meta.get("val")
            if isinstance(value, torch.Tensor) and isinstance(traced, torch.Tensor) and value.dim() != traced.dim():
                raise _OtherDimensions
            return value

        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            name = str(target).removeprefix("aten.")
            if name not in _OVER_NONE or args[0].numel():
                return super().call_function(target, args, kwargs)
            found = torch.sum(args[0], *args[1:], **kwargs).fill_(_OVER_NONE[name])
            return found if name.startswith("a") else (found, found.long())

    given, inputs = iter(leaves), []
    signature = program.graph_signature
    for spec in signature.input_specs:
        held = program.state_dict.get(spec.target)
        held = program.constants.get(spec.target) if held is None else held
        inputs.append(next(given) if spec.kind.name == "USER_INPUT" else held.clone())
    try:
        with torch.no_grad():
            results = Interpreter(program.graph_module).run(*inputs, enable_io_processing=False)
    except Exception:
        return None
    kinds = [spec.kind.name for spec in signature.output_specs]
    return [one for one, kind in zip(results, kinds, strict=True) if kind == "USER_OUTPUT"]


_OVER_NONE = {"amax.default": -math.inf, "amin.default": math.inf, "max.dim": -math.inf, "min.dim": math.inf}
"""What cells give for no rows, where PyTorch raises an error."""


class _OtherDimensions(Exception):
    pass


def _equal(torch: Any, found: Sequence[Any], wanted: Sequence[Any]) -> bool:
    return len(found) == len(wanted) and all(
        one.shape == other.shape and torch.allclose(one.double(), other.double(), rtol=1e-3, atol=1e-4, equal_nan=True)
        for one, other in zip(found, wanted, strict=True)
    )
