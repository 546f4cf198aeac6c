"""Whether random numbers are drawn: looked at after every round, so a look takes microseconds."""

from __future__ import annotations

import ctypes
import random
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from edbatch_tvm.errors import CellError

_WORDS = 625
"""Words of a Mersenne twister: where it is, and its state."""

native: Any = None
"""``native_core``, while it is in use."""

_HEAD = object.__basicsize__
"""Bytes of an object before what is its own."""

_own: Any = random.getstate.__self__  # type: ignore[attr-defined]
_read: Any = (ctypes.c_char * (4 * _WORDS)).from_address


def _memory(generator: random.Random) -> bytes:
    """The state of a generator as it lies in memory: ``getstate()`` makes 625 objects of it."""
    content: bytes = _read(id(generator) + object.__basicsize__).raw
    return content


def _memory_is_known() -> bool:
    """Whether generators lie in memory as CPython's do."""
    base = random.Random.__mro__[1]
    if base.__basicsize__ < object.__basicsize__ + 4 * _WORDS or type(_own) is not random.Random:
        return False
    for seed in (1, 2):
        generator = random.Random(seed)
        for _ in range(seed * 700):
            generator.random()
        *words, place = generator.getstate()[1]
        if list(array("I", _memory(generator))) != [place, *words]:
            return False
    return True


_KNOWN = _memory_is_known()


class NumpyState:
    """The state of a generator of NumPy's, read as it lies in memory: ``get_state()`` makes 624 objects of it.

    Parameters
    ----------
    generator : numpy.random.RandomState
    """

    def __init__(self, generator: np.random.RandomState) -> None:
        self._generator = generator
        self._bits: Any = None
        self._of_words: Any = None
        # What a RandomState has itself: whether a normal number is left of a pair, and which.
        self._of_own = (ctypes.c_char * (type(generator).__basicsize__ - _HEAD)).from_address(id(generator) + _HEAD)

    def read(self) -> Any:
        """Equal if no number has been drawn meanwhile."""
        bits = self._generator._bit_generator
        if type(bits) is not np.random.MT19937 or not _NUMPY_KNOWN:
            state: Any = self._generator.get_state()
            return state[1].tobytes(), *state[2:]
        if bits is not self._bits:
            self._bits, self._of_words = bits, (ctypes.c_char * (4 * _WORDS)).from_address(bits.ctypes.state_address)
        return self._of_words.raw, self._of_own.raw


def _numpy_is_known() -> bool:
    """Whether NumPy's generators lie in memory as they are taken to."""
    if np.random.RandomState.__basicsize__ <= _HEAD:
        return False
    for seed in (1, 2):
        generator = np.random.RandomState(seed)
        reader = NumpyState(generator)
        seen = [reader.read()]
        for draw in (generator.random_sample, generator.standard_normal, generator.standard_normal):
            draw()
            seen += [reader.read(), reader.read()]
        _, words, place, *_ = generator.get_state()
        if list(array("I", seen[-1][0])) != [*words, place]:
            return False
        if seen[1::2] != seen[2::2] or len(set(seen)) != 4:
            return False
    return True


_NUMPY_KNOWN = True
_NUMPY_KNOWN = _numpy_is_known()


GENERATORS = random.Random, torch.Generator, np.random.Generator, np.random.RandomState


def state_of(generator: Any) -> Any:
    """The state of a generator of random numbers, for :func:`put_back`."""
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    return generator.get_state() if isinstance(generator, np.random.RandomState) else generator.bit_generator.state


def put_back(generator: Any, state: Any) -> None:
    """Let a generator give the numbers again that it gave in a state."""
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif isinstance(generator, torch.Generator | np.random.RandomState):
        generator.set_state(state)
    else:
        generator.bit_generator.state = state


def same_state(one: Any, other: Any) -> bool:
    """Whether two states of a generator are equal."""
    if isinstance(one, tuple):
        return all(map(np.array_equal, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else repr(one) == repr(other)


class DrawsNumbers(CellError):
    """Code that draws numbers of Python's or NumPy's."""


@contextmanager
def python_numbers_kept(name: str) -> Iterator[None]:
    """A context in which code draws no numbers of Python's or NumPy's; what it has drawn is drawn again later.

    Parameters
    ----------
    name : str
        Of the cell.

    Raises
    ------
    DrawsNumbers
        At the end, if it has drawn some.
    """
    states = [(generator, state_of(generator)) for generator in (_own, np.random.mtrand._rand)]
    try:
        yield
    finally:
        drawn = [(one, state) for one, state in states if not same_state(state_of(one), state)]
        for generator, state in drawn:
            put_back(generator, state)
    if drawn:
        raise DrawsNumbers(
            f"cell {name!r} draws random numbers of {'Python' if drawn[0][0] is _own else 'NumPy'}",
            "a cell that is the same for every call",
            "draw them outside of the cell, and pass them",
        )


class Drawn:
    """In how many rounds random numbers were drawn.

    Attributes
    ----------
    rounds : int
    """

    def __init__(self) -> None:
        self.rounds = 0
        self._native: Any = native if _KNOWN else None
        self._kept, self._gauss = bytearray(), _own.gauss_next
        self._before: Any = None
        if self._native is None:
            self._before = _state()
        else:
            self._drew()

    def _drew(self) -> bool:
        """Whether a number was drawn, by compiled code."""
        gauss, self._gauss = self._gauss, _own.gauss_next
        place = id(_own) + object.__basicsize__
        drew: bool = self._native.drew(torch.default_generator.get_state, place, 4 * _WORDS, self._kept)
        return drew or gauss != self._gauss

    def look(self) -> None:
        """Look whether numbers have been drawn since the last time."""
        if self._native is not None:
            self.rounds += self._drew()
            return
        now = _state()
        if now != self._before:
            self.rounds += 1
            self._before = now


def _state() -> tuple[Any, ...]:
    """Equal if no number has been drawn, neither by PyTorch nor by Python."""
    python = (_memory(_own), _own.gauss_next) if _KNOWN else random.getstate()
    return torch.default_generator.get_state().numpy().tobytes(), python
