"""What the worker asks of DyNet, on NumPy and without delay: its equations are tested where there is no DyNet."""

from __future__ import annotations

from typing import Any

import numpy as np

__version__ = "fake"


class Expression:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def dim(self) -> tuple[tuple[int, ...], int]:
        return self.array.shape, 1

    def npvalue(self) -> np.ndarray:
        return self.array

    def __add__(self, other: Expression) -> Expression:
        return Expression(self.array + other.array)

    def __sub__(self, other: Expression) -> Expression:
        return Expression(self.array - other.array)

    def __mul__(self, other: Any) -> Expression:
        return Expression(self.array @ other.array if isinstance(other, Expression) else self.array * other)


class ParameterCollection:
    def parameters_from_numpy(self, array: np.ndarray) -> Expression:
        return Expression(array)

    def lookup_parameters_from_numpy(self, array: np.ndarray) -> list[np.ndarray]:
        """DyNet fills a row from its values column by column."""
        return [row.reshape(row.shape, order="F") if row.ndim == 1 else row.T for row in array]


def renew_cg() -> None:
    pass


def forward(expressions: list[Expression]) -> None:
    assert expressions


def zeros(shape: tuple[int, ...]) -> Expression:
    return Expression(np.zeros(shape))


def lookup(table: list[np.ndarray], row: int, update: bool) -> Expression:
    assert not update
    return Expression(table[row])


def logistic(x: Expression) -> Expression:
    return Expression(1 / (1 + np.exp(-x.array)))


def tanh(x: Expression) -> Expression:
    return Expression(np.tanh(x.array))


def cmult(x: Expression, y: Expression) -> Expression:
    return Expression(x.array * y.array)


def pick_range(x: Expression, begin: int, end: int) -> Expression:
    return Expression(x.array[begin:end])


def concatenate(parts: list[Expression]) -> Expression:
    return Expression(np.concatenate([part.array for part in parts]))


def affine_transform(terms: list[Expression]) -> Expression:
    total = terms[0].array
    for matrix, x in zip(terms[1::2], terms[2::2], strict=True):
        total = total + matrix.array @ x.array
    return Expression(total)


def esum(parts: list[Expression]) -> Expression:
    return Expression(np.sum([part.array for part in parts], axis=0))


def average(parts: list[Expression]) -> Expression:
    return Expression(np.mean([part.array for part in parts], axis=0))


def emax(parts: list[Expression]) -> Expression:
    return Expression(np.max([part.array for part in parts], axis=0))
