"""Pass: all kernels of a model in one function that runs a whole schedule."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count as count_from
from typing import Any

import tvm
from tvm import IRModule
from tvm.script.ir_builder import IRBuilder

from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.tvm_compat import PrimType, tirx
from edbatch_tvm.tvm_compat import builder_tirx as T
from relay_ext.add_gather_kernels import ARENA
from relay_ext.fuse_cells import CELL
from relay_ext.parallel_region import parallel_region
from relay_ext.share_cells import members_of
from relay_ext.stage_cells import ORDER, PATH
from relay_ext.workshare_loops import C_ABI, DIMENSIONS, buffers_of, pointer
from schedules import abi
from schedules.cpu.work_sharing import ROW

PROGRAM, RUN_STEPS = "program", "run_steps"
"""Names of the function and of what it calls; a cell of such a name gets another one here."""

ROWS = "edbatch.rows"
"""Attribute of the program: for each type, what stands in its row of the table of types; see :class:`JoinModelKernels`.

First ``[cell, cell that has the kernels, number]``; then for each address ``[kind, name]``, where kind is

* ``attribute``: the name is ``<type>.<number>``;
* ``table``, ``weight``: that weight, as :data:`~schedules.abi.ARGUMENTS` has it;
* ``packed``: what the kernel of that name reads, packed from the weights whose names follow.
"""

_LEADING = ("steps", "index", "copies", "copy_ptr", "types")
_SHARED = ("steps", "index", "arena", "scratch")
"""Kinds of arguments that all types have in common."""


@tvm.transform.module_pass(opt_level=0, name="JoinModelKernels")
@dataclass(frozen=True)
class JoinModelKernels:
    """Add the function that runs the batches of a schedule one after the other, in one parallel region.

    Before::

        leaf(task, tasks, board, launches, step, ...)        # parts, as WorkshareLoops leaves them
        internal(task, tasks, board, launches, step, ...)

    After, beside them::

        def run_steps(task, tasks, board, first, last, ...):
            for step in range(first, last):
                kind = steps[step, TYPE]
                if types[kind, 0] < 1:
                    leaf(task, tasks, board, launches, step, arena0_data, reinterpret("handle", types[kind, 1]), ...)
                else:
                    internal(...)

        def program(tasks, task, shares, board, steps, index, copies, copy_ptr, types, arena0, ...):
            for task in T.parallel(tasks):                      # where a task is given, that one alone
                if len(shares) == 2:
                    run_steps(task, tasks, board, shares[0], shares[1], ...)
                else:
                    for turn in range(len(shares) - 1):
                        share = (task + turn) % (len(shares) - 1)
                        run_steps((task - share) % tasks, 1, its board, shares[share], shares[share + 1], ...)

    ``shares`` has the first step of each share of the schedule, and the end of the last one. No share reads what
    another one writes (:mod:`edbatch_tvm.runtime.shares`). A single share is run by all threads together. Of several,
    each thread begins with its own one, for which it waits for nobody, and helps with the others at the end: there it
    walks along as a thread that owns no grain. So ``board`` has a board for each share, and scratch rows are those of
    all shares, one after the other. ``task`` is that of :func:`~relay_ext.parallel_region.parallel_region`.

    ``types`` has a row of int64 for each type: the number of the kernels that it runs, and the addresses of what these
    read of the type alone: attributes, and weights as they are, as tables and packed. Equal cells have one number and
    other addresses; the attribute :data:`ROWS` of the program says what stands where. The arguments after ``types`` are
    listed in :data:`~schedules.abi.ARGUMENTS` as for a kernel. ``copies`` and ``copy_ptr`` are those of a
    :class:`~edbatch_tvm.memory.plan_with_copies.UnfusedPlan`; a model without kernels that copy rows reads neither.

    Attributes
    ----------
    signature : Signature
    sharing : str
        LLVM IR of the functions that parts call; see :mod:`schedules.cpu.work_sharing`.
    """

    signature: Signature
    sharing: str

    def transform_module(self, mod: IRModule, _context: tvm.transform.PassContext) -> IRModule:
        """Run the pass."""
        functions = _without_names(mod, (PROGRAM, RUN_STEPS))
        joined = IRModule(dict(functions))
        parts = {var: f for var, f in functions.items() if DIMENSIONS in f.attrs}
        kinds = _kinds(self.signature, parts)
        arguments = _Arguments(parts)
        run_steps = tvm.ir.GlobalVar(RUN_STEPS)
        joined[run_steps] = _run_steps(arguments, kinds, parts)
        rows = _rows(self.signature, kinds, _pack_sources(mod))
        joined[tvm.ir.GlobalVar(PROGRAM)] = _program(arguments, run_steps, self.sharing, rows)
        return joined


@dataclass(frozen=True, eq=False)
class _Kind:
    """The kernels of a cell, and of those that are equal to it.

    Attributes
    ----------
    cell : str
    kernels : list of (variable, part)
        In the order they run.
    addresses : list of str
        The arguments that differ from type to type: column 1 and the following ones of a row of the table of types.
    """

    cell: str
    kernels: list[tuple[Any, tirx.PrimFunc]]
    addresses: list[str]


def _kinds(signature: Signature, parts: dict[Any, tirx.PrimFunc]) -> list[_Kind]:
    """The kinds of kernels, in the order of the first types that run them."""
    by_cell: dict[str, list[tuple[Any, tirx.PrimFunc]]] = {}
    for var, part in parts.items():
        if CELL in part.attrs:
            by_cell.setdefault(str(part.attrs[CELL]), []).append((var, part))
    kinds = []
    for cell in sorted(by_cell, key=signature.type_id):
        kernels = sorted(by_cell[cell], key=lambda member: int(member[1].attrs[ORDER]))
        texts = [str(text) for _, part in kernels for text in part.attrs[abi.ARGUMENTS]]
        own = [text for text in dict.fromkeys(texts) if text.partition(":")[0] not in _SHARED]
        kinds.append(_Kind(cell, kernels, own))
    return kinds


def _pack_sources(mod: IRModule) -> dict[str, list[str]]:
    """For each kernel, the weights that are packed for it."""
    packs = [f for f in mod.functions.values() if str(f.attrs.get(PATH, "")) == "pack"]
    texts = [[str(text).partition(":")[2] for text in pack.attrs[abi.ARGUMENTS]] for pack in packs]
    return {kernel: sources for *sources, kernel in texts}


def _rows(signature: Signature, kinds: list[_Kind], sources: dict[str, list[str]]) -> list[list[list[str]]]:
    """What stands in the row of each type; see :data:`ROWS`."""
    rows: dict[str, list[list[str]]] = {}
    for number, kind in enumerate(kinds):
        for cell, own in members_of(kind.kernels[0][1], kind.cell):
            row = [[cell, kind.cell, str(number)]]
            for text in kind.addresses:
                group, _, name = text.partition(":")
                if group == "attribute":
                    row.append([group, f"{signature.type_id(cell)}.{name}"])
                else:
                    names = [own.get(weight, weight) for weight in _weights(text, sources)]
                    row.append([group, name, *names] if group == "packed" else [group, *names])
            rows[cell] = row
    return [rows[cell] for cell in signature.names]


def _weights(text: str, sources: dict[str, list[str]]) -> list[str]:
    """The weights that an argument of a kernel is made of."""
    group, _, name = text.partition(":")
    if group == "packed":
        return sources[name]
    return [] if group == "attribute" else [name]


def _without_names(mod: IRModule, names: tuple[str, ...]) -> dict[Any, tirx.PrimFunc]:
    """The functions of `mod`; a cell that has one of `names` is called otherwise."""
    known = {var.name_hint for var in mod.functions}
    functions: dict[Any, tirx.PrimFunc] = {}
    for var, function in mod.functions.items():
        if var.name_hint in names:
            free = next(name for count in count_from(1) if (name := var.name_hint + "_" * count) not in known)
            known.add(free)
            var = tvm.ir.GlobalVar(free)
        functions[var] = function
    return functions


class _Arguments:
    """The buffers of the program, and where a part finds its own among them."""

    def __init__(self, parts: dict[Any, tirx.PrimFunc]) -> None:
        self.types: dict[str, tuple[Any, ...]] = {
            "steps": (("batches", "columns"), "int32", 4),
            "index": (("indices",), "int32", 4),
            "copies": (("copies", 5), "int32", 4),
            "copy_ptr": (("copy_ptrs",), "int32", 4),
            "types": (("types", "addresses"), "int64", 8),
        }
        self._names: dict[str, list[str]] = {}
        for var, part in parts.items():
            if ARENA in part.attrs:
                names = ["index", f"arena:{int(part.attrs[ARENA])}"]
            else:
                names = ["steps", "index", *(str(text) for text in part.attrs[abi.ARGUMENTS])]
            self._names[var.name_hint] = names
            for name, buffer in zip(names, buffers_of(part), strict=True):
                if name.partition(":")[0] in _SHARED:
                    shape = tuple(
                        f"{name}.{axis}" if isinstance(extent, tirx.Var) else int(extent)
                        for axis, extent in enumerate(buffer.shape)
                    )
                    self.types.setdefault(name, (shape, str(buffer.dtype), int(buffer.ty.data_alignment)))

    @property
    def texts(self) -> list[str]:
        """The arguments after the leading ones."""
        return [name for name in self.types if name not in _LEADING]

    def declare(self) -> dict[str, Any]:
        """Declare the buffers as parameters of the function that is being built."""
        buffers = {}
        for number, (name, (shape, dtype, align)) in enumerate(self.types.items()):
            extents = [
                tirx.Var(f"extent{number}_{axis}", "int32") if isinstance(extent, str) else extent
                for axis, extent in enumerate(shape)
            ]
            label = name if name in _LEADING else f"argument{number}"
            buffers[name] = T.arg(label, T.buffer(extents, dtype, align=align))
        return buffers

    def flat(self, buffers: dict[str, Any], shares: Any, share: Any) -> tuple[list[Any], list[Any]]:
        """Extents that are not constant, and addresses, of all buffers, for the share number `share` of `shares`."""
        extents = [e for buffer in buffers.values() for e in buffer.shape if isinstance(e, tirx.Var)]
        data = []
        for name, buffer in buffers.items():
            if name.partition(":")[0] == "scratch":
                data.append(T.address_of(buffer[tirx.truncdiv(buffer.shape[0], shares) * share, 0]))
            else:
                data.append(buffer.data)
        return extents, data

    def of_part(
        self, var: Any, part: tirx.PrimFunc, extents: dict[str, list[Any]], data: dict[str, Any], own: dict[str, Any]
    ) -> list[Any]:
        """Extents and addresses that `part` takes; `own` has the addresses of the type."""
        names = self._names[var.name_hint]
        numbers = []
        for text in part.attrs[DIMENSIONS]:
            number, axis = (int(one) for one in str(text).split(":"))
            # Rows of an attribute array are found by their position: no kernel reads how many there are.
            numbers.append(extents[names[number]][axis] if names[number] in extents else 0)
        return [*numbers, *(data[name] if name in data else own[name] for name in names)]


def _run_steps(arguments: _Arguments, kinds: list[_Kind], parts: dict[Any, tirx.PrimFunc]) -> tirx.PrimFunc:
    gathers = {int(part.attrs[ARENA]): (var, part) for var, part in parts.items() if ARENA in part.attrs}
    with IRBuilder() as builder, T.prim_func(is_private=True):
        T.func_name("run_steps")
        task, tasks, first, last = (T.arg(name, tirx.Var(name, "int32")) for name in ("task", "tasks", "first", "last"))
        board = T.arg("board", pointer("board", "int64"))
        extents: dict[str, list[Any]] = {name: [] for name in arguments.types}
        for number, (name, (shape, _, _)) in enumerate(arguments.types.items()):
            for axis, extent in enumerate(shape):
                one = f"extent{number}_{axis}"
                extents[name].append(T.arg(one, tirx.Var(one, "int32")) if isinstance(extent, str) else extent)
        data = {}
        for number, (name, (_, dtype, _)) in enumerate(arguments.types.items()):
            data[name] = T.arg(f"data{number}", pointer(f"data{number}", dtype))
        T.func_attr({"tirx.noalias": True, "calling_conv": C_ABI})
        T.func_ret(PrimType("int32"))
        steps = T.decl_buffer(extents["steps"], "int32", data=data["steps"], align=4)
        types = T.decl_buffer(extents["types"], "int64", data=data["types"], align=8)
        launches = T.alloc_buffer((1,), "int32")
        T.buffer_store(launches, 0, [0])
        shared = task, tasks, board, launches.data

        def call(var: Any, part: tirx.PrimFunc, scalars: Iterable[Any], own: dict[str, Any]) -> None:
            T.evaluate(var(*shared, *scalars, *arguments.of_part(var, part, extents, data, own)))

        with T.serial(0, last - first) as number:
            step = tirx.Var("step", "int32")
            T.Bind(first + number, var=step)
            if gathers:
                _copy(arguments, gathers, extents, data, step, call)
            if kinds:
                row, kind = tirx.Var("row", "int32"), tirx.Var("kind", "int32")
                T.Bind(steps[step, abi.TYPE], var=row)
                T.Bind(tirx.Cast("int32", types[row, 0]), var=kind)
                _run_kind(kinds, 0, kind, lambda column: types[row, column], step, call)
        T.add_to_parent(tirx.Return(tirx.const(0, "int32")))
    return builder.get()


def _run_kind(kinds: Sequence[_Kind], first: int, kind: Any, address: Any, step: Any, call: Any) -> None:
    """Call the kernels of number `kind`: one of `kinds`, which are numbered from `first` on. Binary search."""
    if len(kinds) > 1:
        middle = len(kinds) // 2
        with T.If(kind < first + middle):
            with T.Then():
                _run_kind(kinds[:middle], first, kind, address, step, call)
            with T.Else():
                _run_kind(kinds[middle:], first + middle, kind, address, step, call)
        return
    (one,) = kinds
    own = {text: T.reinterpret("handle", address(column)) for column, text in enumerate(one.addresses, 1)}
    for var, part in one.kernels:
        call(var, part, [step], own)


def _copy(
    arguments: _Arguments,
    gathers: dict[int, tuple[Any, tirx.PrimFunc]],
    extents: dict[str, list[Any]],
    data: dict[str, Any],
    step: Any,
    call: Any,
) -> None:
    """The copies before one batch."""
    copies = T.decl_buffer(extents["copies"], "int32", data=data["copies"], align=4)
    copy_ptr = T.decl_buffer(extents["copy_ptr"], "int32", data=data["copy_ptr"], align=4)
    with T.serial(0, copy_ptr[step + 1] - copy_ptr[step]) as number:
        copy = tirx.Var("copy", "int32")
        T.Bind(copy_ptr[step] + number, var=copy)
        for arena, (var, part) in gathers.items():
            with T.If(copies[copy, 0] == arena), T.Then():
                call(var, part, [copies[copy, column] for column in range(1, 5)], {})


def _program(arguments: _Arguments, run_steps: Any, sharing: str, rows: list[list[list[str]]]) -> tirx.PrimFunc:
    with IRBuilder() as builder, T.prim_func():
        T.func_name(PROGRAM)
        tasks, task = (T.arg(name, tirx.Var(name, "int32")) for name in ("tasks", "task"))
        shares = T.arg("shares", T.buffer((tirx.Var("ends", "int32"),), "int32", align=4))
        board = T.arg("board", T.buffer((tirx.Var("words", "int32"),), "int64", align=abi.ALIGNMENT))
        buffers = arguments.declare()
        attributes = {"global_symbol": PROGRAM, "tirx.noalias": True, abi.ARGUMENTS: arguments.texts, ROWS: rows}
        T.func_attr(attributes)
        number = shares.shape[0] - 1
        threads = tasks

        def run(task: Any, tasks: Any, share: Any, place: Any) -> None:
            """Run the steps of one share, of which a board and scratch rows are those at this place."""
            extents, data = arguments.flat(buffers, number, place)
            own = T.address_of(board[place * (threads + 1) * ROW])
            T.evaluate(run_steps(task, tasks, shares[share], shares[share + 1], own, *extents, *data))

        def call(task: Any, tasks: Any) -> None:
            with T.If(number == 1):
                with T.Then():
                    run(task, tasks, 0, 0)
                with T.Else(), T.serial(0, number) as turn:
                    share = tirx.Var("share", "int32")
                    T.Bind(tirx.truncmod(task + turn, number), var=share)
                    run(tirx.truncmod(task + tasks * number - share, tasks), 1, share, share)

        parallel_region(tasks, board, sharing, call, number, task)
    return builder.get()
