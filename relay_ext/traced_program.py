"""Programs of cells in core operators, traced in one pass.

``torch.export`` and the decomposition of what it returns trace code twice, with much around it that cells do not need:
50 to 200 ms a cell. One pass with the same table takes a fifth to two fifths of that, and the graph is the same one.
What is unusual about a cell is left to ``torch.export``: it says what is wrong, or knows what to do.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from relay_ext.core_program import composite_operators
from relay_ext.forwarded_parts import forward_parts


@dataclass(eq=False)
class TracedProgram:
    """What of an ``ExportedProgram`` is asked for, under the same names."""

    graph_module: Any
    graph_signature: Any
    state_dict: dict[str, Any]
    range_constraints: dict[Any, Any]
    constants: dict[str, Any] = field(default_factory=dict)

    @property
    def graph(self) -> Any:
        """The graph, in core operators."""
        return self.graph_module.graph

    @property
    def tensor_constants(self) -> dict[str, Any]:
        """Tensors that are part of the code."""
        return self.constants

    def named_parameters(self) -> Iterator[tuple[str, Any]]:
        """Parameters by path."""
        return ((path, self.state_dict[path]) for path in self.graph_signature.parameters)

    def named_buffers(self) -> Iterator[tuple[str, Any]]:
        """Buffers by path."""
        return ((path, self.state_dict[path]) for path in self.graph_signature.buffers)


class _Unusual(Exception):
    """Something that ``torch.export`` should see."""


def traced_program(torch: Any, module: Any, arguments: tuple[Any, ...], shapes: Any) -> TracedProgram | None:
    """The program of `module`; None where something about it is unusual.

    Parameters
    ----------
    module : torch.nn.Module
    arguments : tuple of tensor
    shapes : optional
        As for ``torch.export``; None if all dimensions are static.
    """
    if not all(type(one) is torch.Tensor for one in arguments):
        return None
    try:
        names = _names(module, len(arguments))
        dims = _dynamic_dims(shapes, len(arguments))
        return _traced(torch, module, arguments, names, dims)
    except Exception:  # whatever it is, torch.export says it
        return None


def _names(module: Any, count: int) -> list[str]:
    """The names of the inputs."""
    names: list[str] = []
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{number}" for number in range(count - len(names))]
        elif parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and len(names) < count:
            names.append(parameter.name)
        elif parameter.default is inspect.Parameter.empty:
            raise _Unusual
    if len(names) != count:
        raise _Unusual
    return names


def _dynamic_dims(shapes: Any, count: int) -> list[int | None]:
    """For each input the dimension of which any extent is allowed."""
    if shapes is None:
        return [None] * count
    given = shapes[0] if len(shapes) == 1 and type(shapes[0]) is tuple else shapes
    if len(given) != count or any(one is not None and len(one) != 1 for one in given):
        raise _Unusual
    return [None if one is None else next(iter(one)) for one in given]


def _traced(
    torch: Any, module: Any, arguments: Sequence[Any], names: Sequence[str], dims: Sequence[int | None]
) -> TracedProgram:
    from torch._dispatch.python import enable_python_dispatcher
    from torch._export.utils import _compiling_state_context
    from torch._functorch._aot_autograd.functional_utils import has_data_mutation, has_metadata_mutation
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch._subclasses.functional_tensor import FunctionalTensor, FunctionalTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import ShapeEnv, SLoc

    class Shapes(ShapeEnv):
        """Extents without the lines of code that they come from: to find these loads all of ``torch.export``."""

        def _get_stack_summary(self, *_given: Any, **_named: Any) -> Any:
            return SLoc(None, None), ""

    tree = torch.utils._pytree
    state = _State.of(torch, module)
    rows = any(dim is not None for dim in dims)
    env = Shapes(allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False) if rows else None
    mode = FakeTensorMode(shape_env=env, allow_non_fake_inputs=False)
    fakes = [mode.from_tensor(one.detach(), static_shapes=True) for one in state.tensors]
    given = [_fake(mode, one, dim, name) for one, dim, name in zip(arguments, dims, names, strict=True)]

    def wrapped(one: Any) -> Any:
        return FunctionalTensor.to_functional(one)

    def plain(one: Any) -> Any:
        if not isinstance(one, FunctionalTensor):
            raise _Unusual  # a constant
        torch._sync(one)
        return torch._from_functional_tensor(one.elem)

    def code(tensors: list[Any], inputs: list[Any]) -> list[Any]:
        outer = torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.Functionalize))
        with outer, FunctionalTensorMode(export=True):
            before = [wrapped(one) for one in [*tensors, *inputs]]
            with state.replaced_by(before[: len(tensors)]), _attributes_kept(module):
                results = module(*before[len(tensors) :])
            leaves, _ = tree.tree_flatten(results)
            for one, fake in zip(before, [*fakes, *given], strict=True):
                if has_data_mutation(one) or has_metadata_mutation(one, fake, check_only_storage_mutation=False):
                    raise _Unusual
            return [plain(leaf) for leaf in leaves]

    composite, table, in_place = composite_operators()
    with _compiling_state_context(), mode, in_place(composite), enable_python_dispatcher():
        graph_module = make_fx(code, decomposition_table=table)(fakes, given)
    symbols = {} if env is None else _free_symbols(env, given, dims)
    signature = _finished(torch, graph_module, state, names)
    program = TracedProgram(graph_module, signature, dict(zip(state.paths, state.tensors, strict=True)), symbols)
    forward_parts(program)
    return program


@dataclass
class _State:
    """Parameters and buffers, each once, by the last path that leads to it.

    A module that is an argument of a cell comes after its owner, which may have it as well.

    Attributes
    ----------
    tensors : list of tensor
    paths : list of str
    parameters : int
        How many of them are parameters; these come first.
    places : list of (dict, str, int)
        Where modules hold them, and the number of the tensor there.
    """

    tensors: list[Any]
    paths: list[str]
    parameters: int
    places: list[tuple[dict[str, Any], str, int]]

    @classmethod
    def of(cls, torch: Any, module: Any) -> _State:
        numbers: dict[int, int] = {}
        tensors: list[Any] = []
        paths: list[str] = []
        places = []
        parameters = 0
        for kind in ("_parameters", "_buffers"):
            for prefix, one in module.named_modules(remove_duplicate=False):
                if kind == "_buffers" and one._non_persistent_buffers_set:
                    raise _Unusual
                for name, tensor in getattr(one, kind).items():
                    if tensor is None:
                        continue
                    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
                        raise _Unusual
                    number = numbers.setdefault(id(tensor), len(tensors))
                    if number == len(tensors):
                        tensors.append(tensor)
                        paths.append("")
                    paths[number] = f"{prefix}.{name}" if prefix else name
                    places.append((getattr(one, kind), name, number))
            if kind == "_parameters":
                parameters = len(tensors)
        return cls(tensors, paths, parameters, places)

    @contextmanager
    def replaced_by(self, others: Sequence[Any]) -> Iterator[None]:
        """Let modules hold other tensors meanwhile."""
        try:
            for held, name, number in self.places:
                held[name] = others[number]
            yield
            if any(held.get(name) is not others[number] for held, name, number in self.places):
                raise _Unusual
        finally:
            for held, name, number in self.places:
                held[name] = self.tensors[number]


@contextmanager
def _attributes_kept(module: Any) -> Iterator[None]:
    """Put attributes of modules back, and the content of lists and dicts that they are; no code may have set one."""
    before = [(vars(one), dict(vars(one))) for one in module.modules()]
    contents = [(value, value.copy()) for _, held in before for value in held.values() if type(value) in (list, dict)]
    changed = False
    try:
        yield
    finally:
        for held, was in before:
            if held.keys() != was.keys() or any(held[name] is not value for name, value in was.items()):
                changed = True
                held.clear()
                held.update(was)
        for value, was in contents:
            items, kept = (list(one.values() if type(one) is dict else one) for one in (value, was))
            same = len(items) == len(kept) and all(one is other for one, other in zip(items, kept, strict=True))
            if not same or (type(value) is dict and value.keys() != was.keys()):
                changed = True
                value.clear()
                (value.update if type(value) is dict else value.extend)(was)
    if changed:
        raise _Unusual


def _fake(mode: Any, tensor: Any, dim: int | None, name: str) -> Any:
    """`tensor` without memory; of any extent along `dim`, the same for all that have one."""
    if dim is None:
        return mode.from_tensor(tensor, static_shapes=True)
    from torch._dynamo.source import ConstantSource
    from torch.fx.experimental.symbolic_shapes import DimDynamic, StatelessSymbolicContext

    # Equal extents of dimensions that are ducks are one symbol.
    kinds = [DimDynamic.DUCK if at == dim else DimDynamic.STATIC for at in range(tensor.dim())]
    context = StatelessSymbolicContext(dynamic_sizes=kinds, constraint_sizes=[None] * tensor.dim())
    return mode.from_tensor(tensor, symbolic_context=context, source=ConstantSource(name))


def _free_symbols(env: Any, given: Sequence[Any], dims: Sequence[int | None]) -> dict[Any, Any]:
    """The number of rows and what it may be: what was traced holds for all of them, two and more."""
    if env.guards or env.replacements or env.deferred_runtime_asserts:
        raise _Unusual
    extents = [one.shape[dim] for one, dim in zip(given, dims, strict=True) if dim is not None]
    symbols = {extent.node.expr for extent in extents}
    if len(symbols) != 1:
        raise _Unusual
    symbol = symbols.pop()
    return {symbol: env.var_to_range[symbol]}


def _finished(torch: Any, graph_module: Any, state: _State, names: Sequence[str]) -> Any:
    """Name the inputs of a graph, drop what nobody reads, and say what inputs and outputs are."""
    from torch.export.graph_signature import (
        ExportGraphSignature,
        InputKind,
        InputSpec,
        OutputKind,
        OutputSpec,
        TensorArgument,
    )

    graph = graph_module.graph
    inputs = list(graph.find_nodes(op="placeholder"))
    if len(inputs) != len(state.tensors) + len(names):
        raise _Unusual
    specs = []
    for number, node in enumerate(inputs):
        if number < len(state.tensors):
            path = state.paths[number]
            is_parameter = number < state.parameters
            _rename(node, ("p_" if is_parameter else "b_") + path.replace(".", "_"))
            kind = InputKind.PARAMETER if is_parameter else InputKind.BUFFER
            specs.append(InputSpec(kind, TensorArgument(node.name), path, None if is_parameter else True))
        else:
            _rename(node, names[number - len(state.tensors)])
            specs.append(InputSpec(InputKind.USER_INPUT, TensorArgument(node.name), None))
    _join_sizes(torch, graph)
    graph.eliminate_dead_code()
    for node in graph.nodes:
        if node.op not in ("placeholder", "call_function", "output"):
            raise _Unusual  # a tensor that is part of the code
        schema = getattr(node.target, "_schema", None)
        if node.op == "call_function" and schema is not None and schema.is_mutable:
            raise _Unusual
    output = graph.output_node()
    results = output.args[0]
    if not all(isinstance(one, torch.fx.Node) for one in results):
        raise _Unusual
    output.args = (tuple(results),)
    graph_module.recompile()
    made = [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(one.name), None) for one in results]
    return ExportGraphSignature(specs, made)


def _join_sizes(torch: Any, graph: Any) -> None:
    """Let each size be computed once: that of two inputs with as many rows is one."""
    known: dict[Any, Any] = {}
    for node in graph.nodes:
        size = node.meta.get("val")
        if node.op == "call_function" and isinstance(size, torch.SymInt):
            first = known.setdefault(size.node.expr, node)
            if first is not node:
                node.replace_all_uses_with(first)


def _rename(node: Any, name: str) -> None:
    # Whatever is a name of Python's own, too: it is that of the input.
    node.name = node.target = name
