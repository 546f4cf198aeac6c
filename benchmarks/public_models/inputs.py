"""Random inputs of varying structure, and what drivers need to import and call models."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

HIDDEN = 128
WORDS = 1000

rng = np.random.default_rng(0)


class Calls(torch.nn.Module):
    """A model whose ``forward`` is a function of a repository that is no method of its model."""

    def __init__(self, model: torch.nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.model = model
        self.function = function

    def forward(self, *arguments: Any) -> Any:
        if len(arguments) == 1 and isinstance(arguments[0], tuple):  # autobatch takes a tuple for one argument
            (arguments,) = arguments
        return self.function(self.model, *arguments)


def inside(*folders: Path) -> None:
    """Import from the folders of a repository and run in the first, as its scripts do."""
    os.chdir(folders[0])
    sys.path[:0] = [str(folder) for folder in folders]


def lengths(count: int, low: int = 5, high: int = 30) -> list[int]:
    """Lengths of sentences."""
    return [int(one) for one in rng.integers(low, high + 1, count)]


def parents_of(length: int) -> list[int]:
    """A random dependency tree: the head of each word, -1 for the root, which is word 0."""
    return [-1, *(int(rng.integers(max(0, word - 6), word)) for word in range(1, length))]


def binary(low: int, high: int) -> Any:
    """A random binary tree over the words `low` to `high` - 1: a word or a pair of trees."""
    if high - low == 1:
        return low
    middle = int(rng.integers(low + 1, high))
    return binary(low, middle), binary(middle, high)


def words(length: int) -> torch.Tensor:
    """Random words."""
    return torch.from_numpy(rng.integers(4, WORDS, length))
