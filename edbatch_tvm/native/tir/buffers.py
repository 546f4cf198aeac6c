"""Declarations that kernels share: arguments, the arrays of graphs, schedules and plans, working storage, scalars."""

# mypy: ignore-errors

from functools import reduce
from operator import mul
from typing import Any

from tvm.script.ir_builder import IRBuilder

from edbatch_tvm.native.cell_tables import FIXED, FIXED_BEFORE, REPEATED, REPEATED_BEFORE
from edbatch_tvm.tvm_compat import script_tirx as T
from edbatch_tvm.tvm_compat import tirx

ITEM_BYTES = {"int8": 1, "int16": 2, "int32": 4, "int64": 8, "uint64": 8}


def size(name: str) -> Any:
    """A size that a call of the kernel decides."""
    return tirx.Var(name, "int32")


def argument(handle: Any, shape: tuple[Any, ...], dtype: str = "int32") -> Any:
    """The NumPy array given as `handle`, aligned to its element only."""
    return _named(handle.name.rstrip("_"), T.match_buffer(handle, shape, dtype, align=ITEM_BYTES[dtype]))


def scalar(name: str, value: Any, dtype: str = "int32") -> Any:
    """A mutable scalar, as ``name = value`` makes one in a kernel."""
    cell = T.local_scalar(dtype).scalar
    T.buffer_store(_named(name, cell.source), value, [0])
    return cell


def constant(name: str, value: Any) -> Any:
    """An immutable scalar, as ``name: T.let = value`` makes one."""
    return _named(name, T.Bind(value))


def _named(name: str, value: Any) -> Any:
    IRBuilder.name(name, value)
    return value


class Workspace:
    """One int32 argument, cut into buffers that lie one behind the other."""

    def __init__(self, handle: Any) -> None:
        self._data = argument(handle, (size("room"),)).data
        self._end = 0

    def cut(self, name: str, *shape: Any) -> Any:
        """The next buffer."""
        buffer = T.decl_buffer(shape, "int32", data=self._data, elem_offset=self._end)
        self._end = constant(f"after_{name}", self._end + reduce(mul, shape))
        return _named(name, buffer)


class GraphArguments:
    """The structure of a graph of `n` nodes: types, users, and how many nodes each one waits for."""

    def __init__(self, node_type: Any, use_ptr: Any, user: Any, waits: Any = None) -> None:
        self.n = size("n")
        self.node_type = argument(node_type, (self.n,), "int16")
        self.use_ptr = argument(use_ptr, (self.n + 1,))
        self.user = argument(user, (size("e"),))
        if waits is not None:
            self.waits = argument(waits, (self.n,))


class ScheduleResults:
    """The schedule of `n` nodes that a kernel writes, at most one batch per node."""

    def __init__(self, n: Any, order: Any, batch_ptr: Any, batch_type: Any) -> None:
        self.order = argument(order, (n,))
        self.batch_ptr = argument(batch_ptr, (n + 1,))
        self.batch_type = argument(batch_type, (n,), "int16")


class PlanArguments:
    """A graph's operands, a schedule with the blocks of its batches, and the tables of the cells.

    A row of ``cells`` has the numbers of outputs and operands, the fixed arity and the number of variadic operands of a
    type; ``operands[u, o]`` how many fixed and how many variadic operands come before operand o, whether it is
    variadic, and the bytes of its rows. ``outside[i]`` is the row of the operand value -1 - i, ``base[b, slot]`` the
    first row of the block of a batch and slot.
    """

    def __init__(
        self,
        operand_ptr: Any,
        operand_value: Any,
        outside: Any,
        order: Any,
        batch_ptr: Any,
        batch_type: Any,
        base: Any,
        cells: Any,
        operands: Any,
        operand_node: Any = None,
    ) -> None:
        self.n, self.m, self.t, self.e = size("n"), size("m"), size("t"), size("e")
        self.slots, self.most = size("slots"), size("most")
        self.operand_ptr = argument(operand_ptr, (self.n + 1,))
        self.operand_value = argument(operand_value, (self.e,))
        if operand_node is not None:
            self.operand_node = argument(operand_node, (self.e,))
        self.outside = argument(outside, (size("x"),))
        self.order = argument(order, (self.n,))
        self.batch_ptr = argument(batch_ptr, (self.m + 1,))
        self.batch_type = argument(batch_type, (self.m,), "int16")
        self.base = argument(base, (self.m, self.slots))
        self.cells = argument(cells, (self.t, 5))
        self.operands = argument(operands, (self.t, self.most, 4))

    def repeats(self, u: Any, v: Any) -> Any:
        """How many values each variadic operand of node `v` of type `u` takes; only for types that have one."""
        spread = self.operand_ptr[v + 1] - self.operand_ptr[v] - self.cells[u, FIXED]
        return T.truncdiv(spread, self.cells[u, REPEATED])

    def position(self, u: Any, o: Any, repeat: Any) -> Any:
        """Where the values of operand `o` begin among those of a node whose variadic operands take `repeat` each."""
        return self.operands[u, o, FIXED_BEFORE] + repeat * self.operands[u, o, REPEATED_BEFORE]
