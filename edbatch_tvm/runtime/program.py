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
from edbatch_tvm.runtime.split_batches import SplitBatches
from edbatch_tvm.runtime.threads import get_num_threads, use_threads
from edbatch_tvm.tvm_compat import runtime
from schedules.cpu.work_sharing import ROW, YIELDS

SINGLE_MULTIPLIES = 2_000_000
"""Minibatches of fewer multiplications run in the caller's thread alone: waking another one costs as much."""

MOST_ALONE = 32
"""Most minibatches in a row that run in one thread because the cores were busy with something else."""

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
    kernels_of_type : int64 array
        How many kernels a batch of each type is.
    split : SplitBatches
        Cuts large batches into pieces.
    """

    def __init__(self, signature: Signature, kernels: KernelSet) -> None:
        self._kernels = kernels
        names = signature.names
        self.kernels_of_type = np.array([len(kernels.by_cell.get(name, ())) for name in names], np.int64)
        self.multiplies = np.array([kernels.multiplies(name) for name in names], np.float64)
        several = self.kernels_of_type > 1
        self.split = SplitBatches(signature, [own and not kernels.gathers for own in several.tolist()])
        cells = list(signature)
        self._attributes = [
            (row, column, cells[row].attributes[number].name) for row, column, number in kernels.attributes
        ]
        self._boards: list[Board] = []
        self._alone = self._next_alone = 0
        self._pace_alone = float("inf")

    def run(self, tables: RunTables, arenas: Sequence[Any], scratch: dict[str, Any]) -> Callable[[], int]:
        """Run all batches in arenas, tensors or arrays; a function that counts the kernels that ran."""
        if not len(tables.steps):
            return lambda: 0
        steps, _ = self.split.steps(tables.steps, get_num_threads())
        arguments = self._arguments(tables, steps, arenas, scratch)
        program = self._kernels.program

        def run(tasks: int, board: Board) -> None:
            program(tasks, 0, len(steps), board.tensor, *arguments.values)

        self.shared(float(tables.type_count @ self.multiplies), run)
        copies = 0 if tables.copies is None else len(tables.copies)
        return lambda: self.calls_of(steps[:, TYPE]) + copies

    def calls_of(self, types: np.ndarray) -> int:
        """How many kernels batches of these types are."""
        return int(self.kernels_of_type[types].sum())

    def shared(self, multiplies: float, run: Callable[[int, Board], Answer]) -> Answer:
        """Have `run` call the program with a number of threads, and the board on which they share the work."""
        threads = use_threads()
        tasks = self._tasks(multiplies, threads)
        board = self._take_board(threads)
        begin = perf_counter()
        answer = run(tasks, board)
        if multiplies >= SINGLE_MULTIPLIES:
            self._learn_from((perf_counter() - begin) / multiplies, tasks, int(board.words[YIELDS]))
        self._boards.append(board)
        return answer

    def parts(self, tables: RunTables, arenas: Sequence[Any], scratch: dict[str, Any]) -> Callable[[int, int], None]:
        """A function that runs the batches from one number up to another, on as many threads as all of them."""
        threads = use_threads()
        steps, first = self.split.steps(tables.steps, threads)
        arguments = self._arguments(tables, steps, arenas, scratch)
        tasks = threads if float(tables.type_count @ self.multiplies) >= SINGLE_MULTIPLIES else 1
        board, program = Board(threads), self._kernels.program

        def run(begin: int, end: int) -> None:
            pieces = (begin, end) if first is None else (int(first[begin]), int(first[end]))
            program(tasks, *pieces, board.tensor, *arguments.values)

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

    def _tasks(self, multiplies: float, threads: int) -> int:
        """The number of threads to use for this number of multiplications."""
        if threads == 1 or multiplies < SINGLE_MULTIPLIES:
            return 1
        if self._alone:
            self._alone -= 1
            return 1
        return threads

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

    def _take_board(self, threads: int) -> Board:
        """A board for this number of threads; a concurrent call gets its own."""
        try:
            board = self._boards.pop()
        except IndexError:
            return Board(threads)
        return board if board.threads >= threads else Board(threads)


class _Arguments(NamedTuple):
    """Arguments of the program after the board, and what has to live while it runs: its addresses are in a table."""

    values: tuple[Any, ...]
    addressed: tuple[LoadedWeights, list[np.ndarray]]


class Board:
    """Where threads claim work; see :mod:`schedules.cpu.work_sharing`."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.tensor = runtime.empty(((1 + threads) * ROW,), "int64")
        self.words = np.from_dlpack(self.tensor)
