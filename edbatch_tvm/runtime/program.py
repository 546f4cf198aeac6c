"""Running a schedule: one call of the compiled program for all batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

import numpy as np

from edbatch_tvm.graph.spec import Signature
from edbatch_tvm.memory.steps_table import TYPE
from edbatch_tvm.runtime.kernels import KernelSet
from edbatch_tvm.runtime.loaded_weights import LoadedWeights
from edbatch_tvm.runtime.run_tables import RunTables
from edbatch_tvm.runtime.shares import PIECE_MULTIPLIES, divide
from edbatch_tvm.runtime.split_batches import SplitBatches
from edbatch_tvm.runtime.threads import use_threads
from edbatch_tvm.tvm_compat import runtime
from relay_ext.parallel_region import ALL_TASKS
from schedules.cpu.work_sharing import ROW, YIELDS

SINGLE_MULTIPLIES = 2_000_000
"""Minibatches of fewer multiplications run in the caller's thread alone: waking another one costs as much."""

MOST_ALONE = 32
"""Most minibatches in a row that run in one thread because the cores were busy with something else."""

MOST_WEIGHT_BYTES = 1 << 19
"""Weights of a cell up to which a minibatch is divided: half of a second-level cache. In a divided minibatch each
thread reads all weights of a cell, else those of its own columns."""

Answer = TypeVar("Answer")

_NO_COPIES = np.zeros((1, 5), np.int32)
_NO_COPY_PTR = np.zeros(1, np.int32)


class Program:
    """The compiled program of a model with the arguments it takes.

    Parameters
    ----------
    signature : Signature
        Of the graphs that are run.
    kernels : KernelSet

    Attributes
    ----------
    multiplies : float64 array
        About how many multiplications a node of each type takes.
    effort : int64 array of shape [2, types]
        The same in whole numbers, at least one, and about how many multiplications would take as long as what a piece
        of a batch takes beside its nodes: the shares of threads are divided by it.
    kernels_of_type : int64 array
        How many kernels a batch of each type is.
    split : SplitBatches
        Cuts large batches into pieces.
    divides : bool
        Whether each thread may run the batches of its own instances; else all run every batch together.
    """

    def __init__(self, signature: Signature, kernels: KernelSet) -> None:
        self._kernels = kernels
        names = signature.names
        self.kernels_of_type = np.array([len(kernels.by_cell.get(name, ())) for name in names], np.int64)
        self.multiplies = np.array([kernels.multiplies(name) for name in names], np.float64)
        nodes = np.maximum(self.multiplies, 1).astype(np.int64)
        self.effort = np.stack([nodes, PIECE_MULTIPLIES * self.kernels_of_type])
        several = self.kernels_of_type > 1
        self.split = SplitBatches(signature, [own and not kernels.gathers for own in several.tolist()])
        cells = list(signature)
        self._attributes = [
            (row, column, cells[row].attributes[number].name) for row, column, number in kernels.attributes
        ]
        most = max((kernels.packed_bytes(name) for name in names), default=0)
        self.divides = not kernels.gathers and most <= MOST_WEIGHT_BYTES
        self._boards: list[Board] = []
        self._alone = self._next_alone = 0
        self._pace_alone = float("inf")

    def run(self, tables: RunTables, arenas: Sequence[Any], scratch: dict[str, Any], threads: int) -> Callable[[], int]:
        """Run all batches in arenas, tensors or arrays; a function that counts the kernels that ran.

        Parameters
        ----------
        threads : int
            The minibatch is divided into a share for each; `scratch` has rows for each share.
        """
        if not len(tables.steps):
            return lambda: 0
        multiplies, program = float(tables.type_count @ self.multiplies), self._kernels.program
        divided = self._divided(tables, threads) if self.tasks_for(multiplies) > 1 else None
        if divided is None:
            steps, _ = self.split.steps(tables.steps, threads)
            divided = steps, np.array([0, len(steps)], np.int32)
        arguments = self._arguments(tables, divided[0], arenas, scratch)

        def run(tasks: int, board: Board) -> None:
            program(tasks, ALL_TASKS, divided[1], board.tensor, *arguments.values)

        self.shared(multiplies, run, len(divided[1]) - 1)
        return lambda: self._calls(tables, threads)

    def _divided(self, tables: RunTables, threads: int) -> tuple[np.ndarray, np.ndarray] | None:
        """The steps of a share for each thread; None where all threads run every batch together."""
        if threads == 1 or tables.planned is None or not self.divides:
            return None
        return divide(*tables.planned, self.effort, self.split.most, threads)

    def _calls(self, tables: RunTables, threads: int) -> int:
        """How many kernels run for a minibatch; one for several shares counts once."""
        steps, _ = self.split.steps(tables.steps, threads)
        return self.calls_of(steps[:, TYPE]) + (0 if tables.copies is None else len(tables.copies))

    def calls_of(self, types: np.ndarray) -> int:
        """How many kernels batches of these types are."""
        return int(self.kernels_of_type[types].sum())

    def shared(self, multiplies: float, run: Callable[[int, Board], Answer], shares: int = 1) -> Answer:
        """Have `run` call the program with a number of threads, and the boards of `shares` where they claim work."""
        tasks = self._tasks(multiplies)
        board = self._take_board(tasks, shares)
        begin = perf_counter()
        answer = run(tasks, board)
        if multiplies >= SINGLE_MULTIPLIES:
            self._learn_from((perf_counter() - begin) / multiplies, tasks, board.yields(tasks, shares))
        self._boards.append(board)
        return answer

    def parts(self, tables: RunTables, arenas: Sequence[Any], scratch: dict[str, Any]) -> Callable[[int, int], None]:
        """A function that runs the batches from one number up to another, on as many threads as all of them."""
        threads = use_threads()
        steps, first = self.split.steps(tables.steps, threads)
        arguments = self._arguments(tables, steps, arenas, scratch)
        tasks = threads if float(tables.type_count @ self.multiplies) >= SINGLE_MULTIPLIES else 1
        board, program = Board(threads, 1), self._kernels.program

        def run(begin: int, end: int) -> None:
            pieces = (begin, end) if first is None else (first[begin], first[end])
            program(tasks, ALL_TASKS, np.array(pieces, np.int32), board.tensor, *arguments.values)

        return run

    def _arguments(
        self, tables: RunTables, steps: np.ndarray, arenas: Sequence[Any], scratch: dict[str, Any]
    ) -> _Arguments:
        """What the program reads for `tables`, cut into `steps`."""
        loaded = self._kernels.loaded  # once: another thread may refresh it
        types, rows = self._types(loaded, tables)
        values = []
        for kind, name in self._kernels.arguments:
            values.append(arenas[int(name)] if kind == "arena" else scratch[name])
        copies = tables.copies if tables.copies is not None and len(tables.copies) else _NO_COPIES
        copy_ptr = _NO_COPY_PTR if tables.copy_ptr is None else tables.copy_ptr
        return _Arguments((steps, tables.index, copies, copy_ptr, types, *values), (loaded, rows))

    def _types(self, loaded: LoadedWeights, tables: RunTables) -> tuple[np.ndarray, list[np.ndarray]]:
        """The table of types, and the attributes in schedule order, whose addresses are in it."""
        types, arrays = loaded.types, []
        if self._attributes:
            types = types.copy()
            for row, column, name in self._attributes:
                if tables.type_count[row]:
                    array = tables.attribute(row, name)
                    types[row, column] = array.__array_interface__["data"][0]
                    arrays.append(array)
        return types, arrays

    def tasks_for(self, multiplies: float) -> int:
        """The number of threads that the next minibatch uses, if it has this number of multiplications."""
        threads = use_threads()
        return 1 if threads == 1 or multiplies < SINGLE_MULTIPLIES or self._alone else threads

    def _tasks(self, multiplies: float) -> int:
        """The same, for a minibatch that runs now."""
        tasks = self.tasks_for(multiplies)
        if self._alone and multiplies >= SINGLE_MULTIPLIES:
            self._alone -= 1
        return tasks

    def _learn_from(self, pace: float, tasks: int, yields: int) -> None:
        """Let the next minibatches run in one thread if several were slower: each time twice as many.

        Several threads are slower where one of them loses its core, to another process, with work in its hands.
        Somebody waits for long then; but so may somebody at the end of large work: the pace decides.

        Parameters
        ----------
        pace : float
            Seconds for each multiplication.
        tasks : int
            Threads that worked.
        yields : int
            How often one of them waited for long.
        """
        if tasks == 1:
            self._pace_alone = pace
        elif yields and (pace > self._pace_alone or self._pace_alone == float("inf")):
            self._next_alone = min(2 * self._next_alone + 1, MOST_ALONE)
            self._alone = self._next_alone
        else:
            self._next_alone = 0

    def _take_board(self, tasks: int, shares: int) -> Board:
        """A board for this number of threads and shares; a concurrent call gets its own."""
        try:
            board = self._boards.pop()
        except IndexError:
            return Board(tasks, shares)
        return board if len(board.words) >= board_words(tasks, shares) else Board(tasks, shares)


class _Arguments(NamedTuple):
    """Arguments of the program after the board, and what has to live while it runs: its addresses are in a table."""

    values: tuple[Any, ...]
    addressed: tuple[LoadedWeights, list[np.ndarray]]


class Board:
    """Where threads claim work, share by share; see :mod:`schedules.cpu.work_sharing`."""

    def __init__(self, tasks: int, shares: int) -> None:
        self.tensor = runtime.empty((board_words(tasks, shares),), "int64")
        self.words = np.from_dlpack(self.tensor)

    def yields(self, tasks: int, shares: int) -> int:
        """How often a thread of the last call waited for long."""
        used = self.words[: board_words(tasks, shares)]
        return int(used[YIELDS :: board_words(tasks, 1)].sum())


def board_words(tasks: int, shares: int) -> int:
    """Words of a board."""
    return shares * (1 + tasks) * ROW
