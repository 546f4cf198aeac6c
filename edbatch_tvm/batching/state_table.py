"""Tables from state to action or value, in the form the native kernels read: open addressing over 64-bit hashes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edbatch_tvm.batching.encoding import State, hash_state, types_of
from edbatch_tvm.batching.fixed_point import RATE_BITS, to_fixed
from edbatch_tvm.batching.splitmix import SplitMix
from edbatch_tvm.errors import PolicyError


def slot_count(states: int) -> int:
    """Power of two that leaves at least half of the slots empty."""
    return 1 << max(2 * states, 4).bit_length()


def find_slot(key: np.ndarray, code: int) -> int:
    """Slot that holds `code`, or the empty one where it belongs."""
    slot = code & (len(key) - 1)
    while key[slot] not in (code, 0):
        slot = (slot + 1) & (len(key) - 1)
    return slot


class StateTable:
    """Action of each known state.

    Parameters
    ----------
    actions : mapping of state to type id
    """

    def __init__(self, actions: Mapping[State, int]) -> None:
        self.actions = dict(actions)
        self.key = np.zeros(slot_count(len(actions)), np.uint64)
        self.action = np.zeros(len(self.key), np.int32)
        for state, action in self.actions.items():
            code = hash_state(state)
            slot = find_slot(self.key, code)
            if self.key[slot]:
                raise PolicyError(f"two states have one hash: {state} and another", "states that differ")
            self.key[slot] = code
            self.action[slot] = action

    def __len__(self) -> int:
        return len(self.actions)

    def change(self, state: State, action: int) -> None:
        """Give a known state another action."""
        self.actions[state] = action
        self.action[find_slot(self.key, hash_state(state))] = action


class ValueTable:
    """Fixed-point value and visit count of each state and action; what Q-learning changes.

    Parameters
    ----------
    num_types : int
    alpha : float
        Weight of the ready ratio in the reward.
    rate : float
        Learning rate.
    steps : int
        Length of the returns.
    seed : int

    Attributes
    ----------
    key : uint64 array of shape [slots]
    rows : int64 array of shape [slots, 3 * types + 2]
        Values, visit counts, length of the state and its words.
    """

    def __init__(self, num_types: int, alpha: float = 1.0, rate: float = 0.4, steps: int = 10, seed: int = 0) -> None:
        self.num_types = num_types
        self.alpha = to_fixed(alpha)
        self.rate = to_fixed(rate, RATE_BITS)
        self.steps = steps
        self.random_state = np.array([SplitMix(seed).signed_state], np.int64)
        self.states = 0
        self.key = np.zeros(4, np.uint64)
        self.rows = np.zeros((4, 3 * num_types + 2), np.int64)

    def make_room(self, more: int) -> None:
        """Grow so that `more` states can enter with half of the slots left empty."""
        if 2 * (self.states + more) <= len(self.key):
            return
        old_key, old_rows = self.key, self.rows
        self.key = np.zeros(slot_count(self.states + more), np.uint64)
        self.rows = np.zeros((len(self.key), old_rows.shape[1]), np.int64)
        for index in np.flatnonzero(old_key).tolist():
            slot = find_slot(self.key, int(old_key[index]))
            self.key[slot] = old_key[index]
            self.rows[slot] = old_rows[index]

    def row(self, state: State) -> np.ndarray:
        """Row of a state (a view); the state enters the table if it is new."""
        slot = find_slot(self.key, hash_state(state))
        row: np.ndarray = self.rows[slot]
        if not self.key[slot]:
            self.key[slot] = hash_state(state)
            self.states += 1
            row[:] = 0
            row[2 * self.num_types] = len(state)
            row[2 * self.num_types + 1 : 2 * self.num_types + 1 + len(state)] = state
        return row

    def greedy(self, encoding: int) -> dict[State, int]:
        """The action of greatest value in every state; the smallest type id among equals."""
        rows, width = self._filled_rows().tolist(), self.num_types
        states = [tuple(row[2 * width + 1 : 2 * width + 1 + row[2 * width]]) for row in rows]
        return {
            state: min(types_of(state, encoding), key=lambda t: (-row[t], t))
            for state, row in zip(states, rows, strict=True)
        }

    def most_frequent(self) -> dict[State, int]:
        """The action taken most often in every state; the smallest type id among equals."""
        rows, width = self._filled_rows(), self.num_types
        words = rows[:, 2 * width :].tolist()
        actions = rows[:, width : 2 * width].argmax(axis=1).tolist()
        return {tuple(row[1 : 1 + row[0]]): action for row, action in zip(words, actions, strict=True)}

    def visits(self) -> dict[State, int]:
        """How often each state was met."""
        rows, width = self._filled_rows(), self.num_types
        total = rows[:, width : 2 * width].sum(axis=1).tolist()
        return {
            tuple(row[1 : 1 + row[0]]): count for row, count in zip(rows[:, 2 * width :].tolist(), total, strict=True)
        }

    def _filled_rows(self) -> np.ndarray:
        filled: np.ndarray = self.rows[self.key != 0]
        return filled
