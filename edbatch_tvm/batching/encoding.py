"""State encodings of the finite state machine (Chen et al., ICML 2023, section 3.2).

A state is a tuple of *words*, small integers:

======= ==============================================================================================================
base    the ready types, ascending
max     the ready types, ascending, and then the one with most ready nodes
sort    the ready types by number of ready nodes, most first
tight   as `sort`; a word is ``2 * type + bit``, the bit saying whether running the type now lowers the remaining bound
======= ==============================================================================================================

Among types with equally many ready nodes the smaller type id comes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edbatch_tvm.errors import PolicyError

if TYPE_CHECKING:
    from edbatch_tvm.batching.frontier import Frontier

ENCODINGS = ("base", "max", "sort", "tight")
BASE, MAX, SORT, TIGHT = range(4)

HASH_FACTOR = 0x2545F4914F6CDD1D
_MASK = (1 << 64) - 1

State = tuple[int, ...]


def encoding_id(name: str) -> int:
    """Number of the encoding called `name`.

    Raises
    ------
    PolicyError
        If there is none.
    """
    if name not in ENCODINGS:
        raise PolicyError(f"unknown encoding {name!r}", f"one of {', '.join(ENCODINGS)}")
    return ENCODINGS.index(name)


def encode(frontier: Frontier, encoding: int) -> State:
    """State of `frontier`."""
    size = frontier.size
    ready = [t for t in range(frontier.num_types) if size[t]]
    if encoding == BASE:
        return tuple(ready)
    if encoding == MAX:
        return (*ready, max(ready, key=lambda t: (size[t], -t)))
    ranking = sorted(ready, key=lambda t: (-size[t], t))
    if encoding == SORT:
        return tuple(ranking)
    tight = frontier.tight()
    return tuple(2 * t + tight[t] for t in ranking)


def words_are_valid(state: State, encoding: int, num_types: int) -> bool:
    """Whether `state` is a state of this encoding over `num_types` types."""
    if not state:
        return False
    types = [word >> 1 for word in state] if encoding == TIGHT else list(state)
    if any(not 0 <= t < num_types for t in types):
        return False
    if encoding == MAX:
        types, most = types[:-1], types[-1]
        if most not in types:
            return False
    if encoding in (BASE, MAX):
        return types == sorted(set(types)) and bool(types)
    return len(set(types)) == len(types)


def types_of(state: State, encoding: int) -> set[int]:
    """The ready types of a state."""
    return {word >> 1 for word in state} if encoding == TIGHT else set(state)


def hash_state(state: State) -> int:
    """64-bit hash of a state, never 0 (0 marks an empty slot of the native table)."""
    code = HASH_FACTOR
    for word in state:
        code = ((code ^ (word + 1)) * HASH_FACTOR) & _MASK
        code ^= code >> 32
    return code or 1
