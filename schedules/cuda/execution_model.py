"""What kernels ask of a GPU: a grid of blocks of threads, barriers, shared memory, registers; and two ways to have it.

The code of a kernel is written once against :class:`Threads`, as a sequence of *phases*: what all threads of a block do
between two barriers of the block. Phases lie in *regions*: what all blocks do between two barriers of the grid.

============== ==================================================== ===================================================
asked for      :class:`GpuThreads`                                  :class:`EmulatedThreads`
============== ==================================================== ===================================================
region         the code, then the barrier of the grid               a loop over the blocks around it
phase          the code, then ``__syncthreads()``                   a loop over the threads around it
registers      an array of each thread                              one array with a row for each thread
shared memory  ``__shared__``                                       one array, used by a block after the other
copy           ``cp.async``                                         a copy
============== ==================================================== ===================================================

So a kernel can be built for LLVM and run where there is no GPU, with its index arithmetic, its use of shared memory and
its barriers. Within a phase the emulation runs one thread after the other, forwards or (`backwards`) the other way
round: code in which a thread reads what another one writes in the same phase gives different results.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tvm.script.ir_builder import IRBuilder

from edbatch_tvm.tvm_compat import builder_tirx as T
from edbatch_tvm.tvm_compat import tirx
from schedules.cuda.product_precision import MULTIPLY, PACK, WORDS, Products

BLOCK = 256
"""Threads of a block."""

WARP = 32
"""Threads that execute an instruction together."""

_COPY_16 = """
__forceinline__ __device__ void edbatch_copy_16(void* to, const void* from) {
  unsigned int at = (unsigned int)__cvta_generic_to_shared(to);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(at), "l"(from) : "memory");
}
"""
_COMMIT = """
__forceinline__ __device__ void edbatch_commit() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
"""


def _wait_source(pending: int) -> str:
    return f"""
__forceinline__ __device__ void edbatch_wait_{pending}() {{
  asm volatile("cp.async.wait_group {pending};" ::: "memory");
}}
"""


def bind(name: str, value: Any) -> Any:
    """A variable called `name` with this value, of the value's dtype."""
    variable = tirx.Var(name, str(value.ty.dtype) if hasattr(value, "ty") else "int32")
    T.Bind(value, var=variable)
    return variable


@contextmanager
def loop(name: str, extent: Any, unroll: bool = False) -> Iterator[Any]:
    """A loop from 0 to `extent` over a variable called `name`."""
    with (T.unroll if unroll else T.serial)(0, extent) as variable:
        IRBuilder.name(name, variable)
        yield variable


Address = Callable[[Any, Any], Any]


class Registers:
    """An array that every thread has of its own."""

    def __init__(self, buffer: Any, first: Any) -> None:
        self.buffer = buffer
        self.first = first

    def _at(self, position: Any, lanes: int) -> Any:
        position = self.first() + position
        return position if lanes == 1 else tirx.Ramp(position, 1, lanes)

    def load(self, position: Any, lanes: int = 1) -> Any:
        """Element `position`, or `lanes` elements from there on."""
        return self.buffer[self._at(position, lanes)]

    def store(self, value: Any, position: Any, lanes: int = 1) -> None:
        """Set element `position`, or `lanes` elements from there on."""
        T.buffer_store(self.buffer, value, [self._at(position, lanes)])


class Threads(ABC):
    """A grid of blocks of :data:`BLOCK` threads; see the module's docstring.

    Attributes
    ----------
    block, thread : expressions
        Number of the block in a region, and of the thread in a phase.
    blocks : expression
        Number of blocks of the grid.
    """

    block: Any
    thread: Any
    blocks: Any

    @abstractmethod
    def launch(self, blocks: Any) -> Any:
        """Context of everything that a grid of `blocks` blocks does."""

    @abstractmethod
    def region(self) -> Any:
        """Context of what the blocks do until the next barrier of the grid."""

    @abstractmethod
    def phase(self) -> Any:
        """Context of what the threads of a block do until the next barrier of the block."""

    @abstractmethod
    def shared(self, name: str, size: int, dtype: str) -> Any:
        """An array that the threads of a block share; its content does not outlive a region."""

    @abstractmethod
    def registers(self, name: str, size: int, dtype: str = "float32") -> Registers:
        """An array of each thread."""

    @abstractmethod
    def unrolled(self, name: str, count: int) -> Any:
        """A loop of constant extent whose variable may index registers."""

    @abstractmethod
    def copy(self, to: Any, at: Any, source: Any, indices: list[Any], elements: int) -> None:
        """Copy 16 bytes, `elements` elements of `source`, to shared memory; they are there after :meth:`wait`."""

    @abstractmethod
    def multiply(
        self, products: Products, accumulators: Registers, pool: Any, rows: Address, weights: list[tuple[int, Address]]
    ) -> None:
        """On tensor cores: add the products of a block of rows with blocks of weights.

        Parameters
        ----------
        accumulators : Registers
        pool : buffer
            Shared memory that both lie in: rows as float32, weights as packed words.
        rows : callable
            ``rows(lane, register)`` is where the first value of a fragment's word lies.
        weights : list of (int, callable)
            First of the four accumulators of a block, and ``address(lane, register)`` where a word lies.
        """

    @abstractmethod
    def commit(self) -> None:
        """End a group of copies."""

    @abstractmethod
    def wait(self, pending: int) -> None:
        """Wait until at most the last `pending` groups of copies of this thread are under way."""


class GpuThreads(Threads):
    """CUDA. With `cooperative`, regions end in a barrier of the grid; else a launch has one region."""

    def __init__(self, cooperative: bool) -> None:
        self.cooperative = cooperative

    @contextmanager
    def launch(self, blocks: Any) -> Iterator[None]:
        """See :meth:`Threads.launch`."""
        self.blocks = blocks
        with T.launch_thread("blockIdx.x", blocks) as block, T.launch_thread("threadIdx.x", BLOCK) as thread:
            IRBuilder.name("block", block)
            IRBuilder.name("thread", thread)
            self.block, self.thread = block, thread
            yield

    @contextmanager
    def region(self) -> Iterator[None]:
        """See :meth:`Threads.region`."""
        yield
        if self.cooperative:
            T.evaluate(T.cuda.grid_sync())

    @contextmanager
    def phase(self) -> Iterator[None]:
        """See :meth:`Threads.phase`."""
        yield
        T.evaluate(T.cuda.cta_sync())

    def shared(self, name: str, size: int, dtype: str) -> Any:
        """See :meth:`Threads.shared`."""
        return IRBuilder.name(name, T.alloc_buffer((size,), dtype, scope="shared"))

    def registers(self, name: str, size: int, dtype: str = "float32") -> Registers:
        """See :meth:`Threads.registers`."""
        buffer = IRBuilder.name(name, T.alloc_buffer((size,), dtype, scope="local"))
        return Registers(buffer, lambda: tirx.const(0, "int32"))

    def unrolled(self, name: str, count: int) -> Any:
        """See :meth:`Threads.unrolled`."""
        return loop(name, count, unroll=True)

    def copy(self, to: Any, at: Any, source: Any, indices: list[Any], elements: int) -> None:
        """See :meth:`Threads.copy`."""
        target, origin = T.address_of(to[at]), T.address_of(source[tuple(indices)])
        T.evaluate(T.cuda.func_call("edbatch_copy_16", target, origin, source_code=_COPY_16))

    def multiply(
        self, products: Products, accumulators: Registers, pool: Any, rows: Address, weights: list[tuple[int, Address]]
    ) -> None:
        """See :meth:`Threads.multiply`."""
        lane, name = bind("lane", tirx.truncmod(self.thread, WARP)), products.name
        a = []
        for register in range(4):
            at = T.address_of(pool[rows(lane, register)])
            word = T.cuda.func_call(f"edbatch_word_{name}", at, source_code=PACK[name], return_type="uint32")
            a.append(bind(f"a{register}", word))
        for first, address in weights:
            b = [bind("b", tirx.reinterpret("uint32", pool[address(lane, register)])) for register in range(2)]
            c = T.address_of(accumulators.buffer[accumulators.first() + first])
            T.evaluate(T.cuda.func_call(f"edbatch_multiply_{name}", c, *a, *b, source_code=MULTIPLY[name]))

    def commit(self) -> None:
        """See :meth:`Threads.commit`."""
        T.evaluate(T.cuda.func_call("edbatch_commit", source_code=_COMMIT))

    def wait(self, pending: int) -> None:
        """See :meth:`Threads.wait`."""
        T.evaluate(T.cuda.func_call(f"edbatch_wait_{pending}", source_code=_wait_source(pending)))


class EmulatedThreads(Threads):
    """Loops over blocks and threads, for LLVM.

    Parameters
    ----------
    backwards : bool
        Run blocks and threads from the last to the first.
    """

    def __init__(self, backwards: bool = False) -> None:
        self.backwards = backwards

    def _number(self, turn: Any, count: Any) -> Any:
        return count - 1 - turn if self.backwards else turn

    @contextmanager
    def launch(self, blocks: Any) -> Iterator[None]:
        """See :meth:`Threads.launch`."""
        self.blocks = blocks
        yield

    @contextmanager
    def region(self) -> Iterator[None]:
        """See :meth:`Threads.region`."""
        with loop("b", self.blocks) as turn:
            self.block = self._number(turn, self.blocks)
            yield

    @contextmanager
    def phase(self) -> Iterator[None]:
        """See :meth:`Threads.phase`."""
        with loop("t", BLOCK) as turn:
            self.thread = self._number(turn, BLOCK)
            yield

    def shared(self, name: str, size: int, dtype: str) -> Any:
        """See :meth:`Threads.shared`."""
        return IRBuilder.name(name, T.alloc_buffer((size,), dtype, scope="global"))

    def registers(self, name: str, size: int, dtype: str = "float32") -> Registers:
        """See :meth:`Threads.registers`."""
        buffer = IRBuilder.name(name, T.alloc_buffer((BLOCK * size,), dtype, scope="global"))
        return Registers(buffer, lambda: self.thread * size)

    def unrolled(self, name: str, count: int) -> Any:
        """See :meth:`Threads.unrolled`."""
        return loop(name, count)

    def copy(self, to: Any, at: Any, source: Any, indices: list[Any], elements: int) -> None:
        """See :meth:`Threads.copy`."""
        *rows, column = indices
        at_source = (*rows, tirx.Ramp(column, 1, elements))
        value = source[at_source]
        T.buffer_store(to, value, [tirx.Ramp(at, 1, elements)])

    def multiply(
        self, products: Products, accumulators: Registers, pool: Any, rows: Address, weights: list[tuple[int, Address]]
    ) -> None:
        """What the instruction does, from the fragments that the lanes of the warp would load."""
        lane = tirx.truncmod(self.thread, WARP)
        for first, address in weights:
            with loop("e", 4) as e, loop("word", WORDS) as word:
                row = tirx.truncdiv(lane, 4) + 8 * tirx.truncdiv(e, 2)
                column = 2 * tirx.truncmod(lane, 4) + tirx.truncmod(e, 2)
                high = tirx.truncdiv(word, 4)
                holder = tirx.truncmod(row, 8) * 4 + tirx.truncmod(word, 4)
                x = bind("x_at", rows(holder, tirx.truncdiv(row, 8) + 2 * high))
                w = pool[address(column * 4 + tirx.truncmod(word, 4), high)]
                total = accumulators.load(first + e)
                for place, value in enumerate(products.unpacked(w)):
                    total = total + products.rounded(pool[x + place]) * value
                accumulators.store(total, first + e)

    def commit(self) -> None:
        """Nothing: copies are made where they are asked for."""

    def wait(self, pending: int) -> None:
        """Nothing."""
