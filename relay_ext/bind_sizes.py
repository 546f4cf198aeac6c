"""Pass: symbolic sizes of cells become numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import IRModule, relax

from edbatch_tvm.argument_checks import require_type
from edbatch_tvm.errors import CellError
from edbatch_tvm.tvm_compat import TensorType, tirx
from relay_ext.signature import cell_functions, input_params, weight_params


@tvm.transform.module_pass(opt_level=0, name="BindSizes")
@dataclass(frozen=True)
class BindSizes:
    """Replace the symbolic sizes of every cell, by name; the number of rows of variadic operands stays symbolic.

    Before, with ``sizes={"H": 64}``::

        def node(children: R.Tensor(("k", "H")), W: R.Tensor(("H", "H"))): ...

    After::

        def node(children: R.Tensor(("k", 64)), W: R.Tensor((64, 64))): ...
    """

    sizes: Mapping[str, int]

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        for name, function in cell_functions(mod).items():
            symbols = {symbol.name for symbol in relax.analysis.defined_symbolic_vars(function)}
            bound = {symbol: self.sizes[symbol] for symbol in sorted(symbols) if symbol in self.sizes}
            if bound:
                mod = relax.transform.BindSymbolicVars(bound, name)(mod)
        return mod


def find_sizes(
    mod: IRModule, weights: Mapping[str, Any] | None = None, given: Mapping[str, int] | None = None
) -> dict[str, int]:
    """The numbers that the symbolic sizes of cells stand for; one name is one size in all cells.

    A symbol that occurs in a weight, or anywhere but in front of an operand, is a size; one that only is the leading
    extent of operands is the number of rows of variadic operands, unless `given` names it.

    Parameters
    ----------
    mod : IRModule
    weights : mapping of str to array, optional
        Sizes are read off the shapes of the weights.
    given : mapping of str to int, optional
        Sizes by name.

    Raises
    ------
    CellError
        If a size is not known, or two places say different numbers.
    """
    require_type(given, Mapping | None, "sizes as a dict of names and integers", CellError)  # type: ignore[arg-type]
    names = _size_names(mod)
    sizes: dict[str, int] = {}
    source: dict[str, str] = {}

    def settle(name: str, size: int, where: str) -> None:
        if sizes.setdefault(name, size) != size:
            raise CellError(
                f"size {name!r} is {sizes[name]} in {source[name]} and {size} in {where}", "one number for one name"
            )
        source.setdefault(name, where)

    symbols = {s.name for f in cell_functions(mod).values() for s in relax.analysis.defined_symbolic_vars(f)}
    for name, size in (given or {}).items():
        if name not in symbols:
            raise CellError(f"size {name!r}", f"a symbolic size of the cells: {', '.join(sorted(symbols)) or 'none'}")
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size < 2**31:
            raise CellError(f"size {name!r} = {size!r}", "an integer of 1 or more")
        settle(name, size, "the argument sizes")
    for function in cell_functions(mod).values():
        for param in weight_params(function):
            shape = getattr((weights or {}).get(param.name), "shape", ())
            if len(shape) == len(_extents(param)):  # a weight of another rank is refused later, by its name
                for extent, size in zip(_extents(param), shape, strict=True):
                    if isinstance(extent, tirx.Var):
                        settle(extent.name, int(size), f"weight {param.name!r}")
    for name, cell in names.items():
        if name not in sizes:
            raise CellError(
                f"size {name!r} of cell {cell!r} is not known",
                "a weight with that extent, or its number",
                f'eb.compile(..., sizes={{"{name}": 64}})',
            )
    return sizes


def _size_names(mod: IRModule) -> dict[str, str]:
    """Symbols that are sizes, each with the first cell that has it."""
    names: dict[str, str] = {}
    for cell, function in cell_functions(mod).items():
        extents = [extent for param in weight_params(function) for extent in _extents(param)]
        extents += [extent for param in input_params(function) for extent in _extents(param)[1:]]
        for extent in extents:
            for symbol in tirx.analysis.undefined_vars(extent):
                names.setdefault(symbol.name, cell)
    return names


def _extents(param: Any) -> list[Any]:
    if not isinstance(param.ty, TensorType) or not isinstance(param.ty.shape, relax.ShapeExpr):
        return []
    return list(param.ty.shape.values)
