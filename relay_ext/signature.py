"""Signatures and weights of the cells of an IRModule.

A cell is an ``R.function`` whose attribute ``num_input`` says that its first parameters are per instance, the rest
weights (TVM's own convention). Of the per-instance parameters, float tensors are operands and integer tensors
attributes; an operand whose leading dimension is symbolic is variadic. A float tensor that is listed in the attribute
``attributes`` of the function is an attribute as well.
"""

from __future__ import annotations

from typing import Any

from tvm import IRModule, relax

from edbatch_tvm.errors import CellError
from edbatch_tvm.graph.spec import Attribute, CellSignature, Operand, Signature, ValueSpec, is_attribute_dtype
from edbatch_tvm.tvm_compat import TensorType, tirx

ATTRIBUTES = "attributes"
"""Attribute of a cell: the names of its per-instance parameters of floats that are attributes, not operands."""


def cell_functions(mod: IRModule) -> dict[str, relax.Function]:
    """The cells of `mod` by name, in the module's order: its public Relax functions."""
    return {
        var.name_hint: function
        for var, function in mod.functions.items()
        if isinstance(function, relax.Function) and not (function.attrs and "Primitive" in function.attrs)
    }


def signature_of(mod: IRModule) -> Signature:
    """The signature of every cell of `mod`.

    Raises
    ------
    CellError
        Naming the cell and the parameter that is not of the form described above.
    """
    cells = cell_functions(mod)
    if not cells:
        raise CellError("an IRModule without R.function", "one R.function a cell")
    return Signature(_cell_signature(name, function) for name, function in cells.items())


def weights_of(mod: IRModule) -> dict[str, ValueSpec]:
    """Shape and dtype of every weight by name; cells that use one name share the weight.

    Raises
    ------
    CellError
        If two cells use one name for weights of different shapes.
    """
    weights: dict[str, ValueSpec] = {}
    owner: dict[str, str] = {}
    for name, function in cell_functions(mod).items():
        for param in weight_params(function):
            spec = _static_spec(name, param)
            if weights.setdefault(param.name, spec) != spec:
                raise CellError(
                    f"weight {param.name!r} is {spec} in {name!r} and {weights[param.name]} in {owner[param.name]!r}",
                    "one shape for one name: cells share weights by name",
                )
            owner.setdefault(param.name, name)
    return weights


def input_params(function: relax.Function) -> list[Any]:
    """The per-instance parameters of a cell."""
    return list(function.params)[: num_input(function)]


def weight_params(function: relax.Function) -> list[Any]:
    """The weight parameters of a cell."""
    return list(function.params)[num_input(function) :]


def num_input(function: relax.Function) -> int:
    """Number of per-instance parameters; all of them where the attribute ``num_input`` is missing."""
    if function.attrs is not None and "num_input" in function.attrs:
        return int(function.attrs["num_input"])
    return len(function.params)


def float_attributes(function: relax.Function) -> list[str]:
    """The names of the per-instance parameters of floats that are attributes."""
    has = function.attrs is not None and ATTRIBUTES in function.attrs
    return [str(name) for name in function.attrs[ATTRIBUTES]] if has else []


def is_attribute(function: relax.Function, param: Any) -> bool:
    """Whether a per-instance parameter of a cell is an attribute: integers, and what the cell declares one."""
    return is_attribute_dtype(str(param.ty.dtype)) or param.name in float_attributes(function)


def input_attrs(function: relax.Function) -> dict[str, Any]:
    """The attributes of a cell that say what its parameters are, for another one with the same inputs."""
    names = float_attributes(function)
    return {"num_input": num_input(function)} | ({ATTRIBUTES: names} if names else {})


def output_vars(function: relax.Function) -> list[Any]:
    """The variables (or other expressions) a cell returns, in order."""
    body = function.body
    if isinstance(body, relax.SeqExpr):
        bound = {binding.var: binding.value for block in body.blocks for binding in block.bindings}
        body = body.body
        while isinstance(body, relax.Var) and isinstance(bound.get(body), relax.Var | relax.Tuple):
            body = bound[body]
    return list(body.fields) if isinstance(body, relax.Tuple) else [body]


def _tensor_type(name: str, what: str, annotation: Any) -> Any:
    if not isinstance(annotation, TensorType) or annotation.shape is None or annotation.dtype is None:
        raise CellError(f"{what} of cell {name!r} is {annotation}", "an R.Tensor of known shape and dtype")
    return annotation


def _static_spec(name: str, param: Any) -> ValueSpec:
    annotation = _tensor_type(name, f"parameter {param.name!r}", param.ty)
    shape = annotation.shape.values
    if not all(isinstance(extent, tirx.IntImm) for extent in shape):
        raise CellError(
            f"parameter {param.name!r} of cell {name!r} has shape ({', '.join(map(str, shape))})",
            "a static shape (only the leading dimension of an operand may be symbolic: a variadic operand)",
            "bind symbolic sizes first, with relay_ext.bind_sizes.BindSizes; eb.compile does",
        )
    return ValueSpec(tuple(int(extent) for extent in shape), str(annotation.dtype))


def _cell_signature(name: str, function: relax.Function) -> CellSignature:
    if not 0 <= num_input(function) <= len(function.params):
        raise CellError(
            f"num_input of cell {name!r} is {num_input(function)}",
            f"0 to {len(function.params)}, its number of parameters",
        )
    named = {param.name for param in input_params(function)}
    for given in float_attributes(function):
        if given not in named:
            raise CellError(
                f"attribute {given!r} of cell {name!r}, which has no such input",
                f"one of {', '.join(sorted(named))}",
            )
    bounds = _index_bounds(function)
    operands: list[Operand] = []
    attributes: list[Attribute] = []
    symbols: list[Any] = []
    for param in input_params(function):
        annotation = _tensor_type(name, f"parameter {param.name!r}", param.ty)
        shape = list(annotation.shape.values)
        attribute = is_attribute(function, param)
        if shape and isinstance(shape[0], tirx.Var) and not attribute:
            symbols.append(shape[0])
            inner = relax.Var(param.name, TensorType(shape[1:], annotation.dtype))
            operands.append(Operand(param.name, _static_spec(name, inner), variadic=True))
        elif attribute:
            attributes.append(Attribute(param.name, _static_spec(name, param), bounds.get(param.name)))
        else:
            operands.append(Operand(param.name, _static_spec(name, param)))
    if any(not symbol.same_as(symbols[0]) for symbol in symbols):
        raise CellError(
            f"cell {name!r} has several variadic sizes ({', '.join(symbol.name for symbol in symbols)})",
            "one symbol, shared by all its variadic operands",
            'write R.Tensor(("k", H), ...) with the same "k" for each',
        )
    outputs = tuple(_output_spec(name, position, out) for position, out in enumerate(output_vars(function)))
    return CellSignature(name, tuple(operands), tuple(attributes), outputs)


def _output_spec(name: str, position: int, out: Any) -> ValueSpec:
    annotation = _tensor_type(name, f"output {position}", out.ty)
    if not all(isinstance(extent, tirx.IntImm) for extent in annotation.shape.values):
        raise CellError(
            f"output {position} of cell {name!r} has shape {annotation.shape}",
            "a static shape",
            "reduce over the variadic dimension, for instance with R.sum(x, axis=0)",
        )
    if is_attribute_dtype(str(annotation.dtype)):
        raise CellError(f"output {position} of cell {name!r} has dtype {annotation.dtype}", "a float dtype")
    return ValueSpec(tuple(int(extent) for extent in annotation.shape.values), str(annotation.dtype))


def _index_bounds(function: relax.Function) -> dict[str, int]:
    """Number of valid values of each attribute that indexes a table through ``R.take``."""
    bounds: dict[str, int] = {}

    def visit(call: relax.Call) -> None:
        if getattr(call.op, "name", "") != "relax.take" or call.attrs.mode != "fast":
            return
        table, index = call.args[0], call.args[1]
        if isinstance(index, relax.Var) and isinstance(table.ty, TensorType) and table.ty.shape is not None:
            axis = int(call.attrs.axis) if call.attrs.axis is not None else 0
            extent = table.ty.shape.values[axis]
            if isinstance(extent, tirx.IntImm):
                bounds[index.name] = min(int(extent), bounds.get(index.name, int(extent)))

    relax.analysis.post_order_visit(function, lambda node: visit(node) if isinstance(node, relax.Call) else None)
    return bounds
