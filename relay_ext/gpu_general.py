"""General cells for GPUs: a block of threads runs one instance after another, its threads share each step."""

from __future__ import annotations

from typing import Any

from edbatch_tvm.graph.spec import CellSignature
from edbatch_tvm.tvm_compat import TensorLoad, structural_map, sym, tirx
from edbatch_tvm.tvm_compat import builder_tirx as T
from relay_ext.fuse_cells import cell_params
from schedules import abi
from schedules.cuda.execution_model import BLOCK, bind, loop
from schedules.cuda.general_cell_steps import Step, spread_cell
from schedules.cuda.kernel_arguments import WORKSPACE
from schedules.cuda.kernels import Context, Occupancy
from schedules.operand_rows import operand_row


class GeneralPart:
    """A cell outside the stage form; see :class:`schedules.cuda.kernels.Part`.

    Before::

        for i in range(128): a[i] = h[i] * 2          # one instance
        for i in range(128): b[i] = a[i] + a[127 - i]

    After::

        for each instance of the block:
            for i < 128, i = thread, thread + 256, ...: workspace[block, i] = arena[h_row, i] * 2
            __syncthreads()
            for i < 128, i = thread, thread + 256, ...: arena[out + instance, i] = workspace[block, i] + ...

    Values between the steps lie in a workspace in memory, a part of it for each block.

    Parameters
    ----------
    function : PrimFunc
        The cell as FuseCells leaves it.
    first_attribute : int
        Number of the cell's first attribute among those of the model.
    """

    def __init__(
        self, function: tirx.PrimFunc, cell: CellSignature, binding: abi.CellBinding, first_attribute: int
    ) -> None:
        self.cell = cell
        self.binding = binding
        self.first_attribute = first_attribute
        self.name = cell.name
        self.type_id = binding.type_id
        self.inputs, self.weights, self.outputs = cell_params(function)
        self.operand = {operand.name: number for number, operand in enumerate(cell.operands)}
        self.attribute = {attribute.name: number for number, attribute in enumerate(cell.attributes)}
        spread = spread_cell(function)
        self.steps, self.values = spread.steps, spread.buffers
        self.row_count = next((p.shape[0] for p in self.inputs if self._is_variadic(p)), None)

    def _is_variadic(self, param: Any) -> bool:
        return param.name in self.operand and self.cell.operands[self.operand[param.name]].variadic

    def arguments(self) -> list[str]:
        """See :meth:`~schedules.cuda.kernels.Part.arguments`."""
        arenas = [self.binding.operand_arena[self.operand[p.name]] for p in self.inputs if p.name in self.operand]
        texts = [f"arena:{a}" for a in [*arenas, *self.binding.output_arena]]
        texts += [f"weight:{name}" for name in self.weights.values()]
        texts += [f"workspace:{value.dtype}" for value in self.values]
        return list(dict.fromkeys(texts))

    def shared(self) -> tuple[int, int]:
        """See :meth:`~schedules.cuda.kernels.Part.shared`."""
        return 0, 0

    def blocks(self, count: Any, machine: Occupancy) -> Any:
        """See :meth:`~schedules.cuda.kernels.Part.blocks`."""
        return tirx.min(count, tirx.const(4 * machine.fill, "int32"))

    def workspace_elements(self, rows: int) -> int:
        """Elements of workspace, of the dtype that needs most, for an instance with `rows` variadic rows."""
        totals: dict[str, int] = {}
        count = {} if self.row_count is None else {self.row_count: tirx.const(rows, self.row_count.ty.dtype)}
        for value in self.values:
            size = sym.Analyzer().simplify(_substituted(_size(value), count))
            totals[str(value.dtype)] = totals.get(str(value.dtype), 0) + int(size)
        return max(totals.values(), default=0)

    def emit(self, context: Context, step: Any) -> None:
        """See :meth:`~schedules.cuda.kernels.Part.emit`."""
        threads, tables, layout = context.threads, context.tables, self.binding.layout
        count = bind("n", tables.step(step, abi.COUNT))
        turns = tirx.truncdiv(count + threads.blocks - 1 - threads.block, threads.blocks)
        with loop("turn", turns) as turn:
            instance = bind("instance", threads.block + turn * threads.blocks)
            code = _InstanceCode(self, context)
            if self.cell.variadic_count:
                pointer = bind("pointer", tables.step(step, abi.POINTER))
                code.begin = bind("begin", tables[pointer + instance])
                rows = bind("k", tables[pointer + instance + 1] - code.begin)
                assert self.row_count is not None
                code.sizes[self.row_count] = tirx.Cast(self.row_count.ty.dtype, rows)
            for param in self.inputs:
                if param.name in self.attribute:
                    code.rows[param] = bind("row", tables.step(step, abi.FIRST) + instance)
                    continue
                number = self.operand[param.name]
                base = bind("base", tables.step(step, layout.base(number)))
                stride = bind("stride", tables.step(step, layout.stride(number)))
                variadic = self.cell.operands[number].variadic
                row = (base, stride) if variadic else bind("row", operand_row(base, stride, instance, tables))
                code.rows[param] = row
            for slot, param in enumerate(self.outputs):
                code.rows[param] = bind("row", tables.step(step, layout.output(slot)) + instance)
            code.place_values()
            for one in self.steps:
                code.step(one)


class _InstanceCode:
    """The code of one instance."""

    def __init__(self, part: GeneralPart, context: Context) -> None:
        self.part = part
        self.context = context
        self.rows: dict[Any, Any] = {}
        self.sizes: dict[Any, Any] = {}
        self.begin: Any = None
        self.place: dict[Any, Any] = {}

    def place_values(self) -> None:
        """Where each value lies in the workspace of the block."""
        if not self.part.values:
            return
        tables, threads = self.context.tables, self.context.threads
        at: dict[str, Any] = {}
        for value in self.part.values:
            dtype = str(value.dtype)
            here = at.get(dtype, threads.block * tables.buffer[WORKSPACE])
            self.place[value] = bind(f"at_{value.name}", here)
            at[dtype] = self.place[value] + tirx.Cast("int32", _substituted(_size(value), self.sizes))

    def step(self, step: Step) -> None:
        """One step, and the barrier after it."""
        threads = self.context.threads
        with threads.phase():
            if step.variable is None:
                with T.If(threads.thread == 0), T.Then():
                    T.add_to_parent(self._rewritten(step.body, {}))
                return
            extent = bind("extent", tirx.Cast("int32", _substituted(step.extent, self.sizes)))
            with loop("turn", tirx.truncdiv(extent + (BLOCK - 1), BLOCK)) as turn:
                at = bind("at", turn * BLOCK + threads.thread)
                with T.If(at < extent), T.Then():
                    values = {step.variable: tirx.Cast(step.variable.ty.dtype, at)}
                    T.add_to_parent(self._rewritten(step.body, values))

    def _rewritten(self, body: Any, values: dict[Any, Any]) -> Any:
        known = {*self.rows, *self.part.weights, *self.place}

        def load(node: Any) -> Any:
            if node.source not in known:
                return node
            return self._load(node.source, node.indices)

        def store(node: Any) -> Any:
            if node.buffer not in known:
                return node
            buffer, at = self._at(node.buffer, node.indices)
            return tirx.BufferStore(buffer, node.value, at)

        body = structural_map(body, [(TensorLoad, load), (tirx.BufferStore, store)], order="post")
        return _substituted(body, {**self.sizes, **values})

    def _load(self, param: Any, indices: Any) -> Any:
        part = self.part
        if param.name in part.attribute and param in self.rows:
            number = part.attribute[param.name]
            size = part.binding.attribute_size[number]
            flat = _flat(list(param.shape), list(indices))
            dtype = str(param.dtype)
            value = self.context.tables.attribute(part.first_attribute + number, size, dtype, self.rows[param], flat)
            return value if dtype in ("int32", "float32") else tirx.Cast(dtype, value)
        buffer, at = self._at(param, indices)
        return tirx.BufferLoad(buffer, at)

    def _at(self, param: Any, indices: Any) -> tuple[Any, list[Any]]:
        """The buffer of the kernel that a value of the instance lies in, and where."""
        part, arguments = self.part, self.context.arguments
        if param in part.weights:
            return arguments[f"weight:{part.weights[param]}"], list(indices)
        if param in self.place:
            return arguments[f"workspace:{param.dtype}"], [self.place[param] + _flat(list(param.shape), list(indices))]
        shape, row = list(param.shape), self.rows[param]
        if param.name in part.operand and any(param.same_as(one) for one in part.inputs):
            arena = arguments[f"arena:{part.binding.operand_arena[part.operand[param.name]]}"]
            if isinstance(row, tuple):
                position = self.begin + tirx.Cast("int32", indices[0])
                base, stride = row
                row = operand_row(base, stride, position, self.context.tables)
                return arena, [row, _flat(shape[1:], list(indices)[1:])]
            return arena, [row, _flat(shape, list(indices))]
        slot = next(number for number, one in enumerate(part.outputs) if one.same_as(param))
        return arguments[f"arena:{part.binding.output_arena[slot]}"], [row, _flat(shape, list(indices))]


def _size(value: Any) -> Any:
    size: Any = tirx.const(1, "int64")
    for extent in value.shape:
        size = size * tirx.Cast("int64", extent)
    return size


def _flat(shape: list[Any], indices: list[Any]) -> Any:
    """Position of an element in row-major order, as int32."""
    flat: Any = tirx.const(0, "int32")
    for position, (extent, at) in enumerate(zip(shape, indices, strict=True)):
        at = tirx.Cast("int32", at)
        flat = at if position == 0 else flat * tirx.Cast("int32", extent) + at
    return flat


def _substituted(node: Any, values: dict[Any, Any]) -> Any:
    if not values:
        return node
    return structural_map(node, (tirx.Var, lambda variable: values.get(variable, variable)))
