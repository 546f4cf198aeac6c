"""What the worker asks of DyNet, on PyTorch and without delay: its equations are tested where there is no DyNet."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

__version__ = "fake"


class Expression:
    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def dim(self) -> tuple[tuple[int, ...], int]:
        return tuple(self.tensor.shape), 1

    def npvalue(self) -> np.ndarray:
        return self.tensor.detach().numpy()

    def value(self) -> float:
        return float(self.tensor.detach())

    def backward(self) -> None:
        self.tensor.backward()

    def grad_as_array(self) -> np.ndarray:
        return np.zeros(self.tensor.shape) if self.tensor.grad is None else self.tensor.grad.numpy()

    def __add__(self, other: Expression) -> Expression:
        return Expression(self.tensor + other.tensor)

    def __sub__(self, other: Expression) -> Expression:
        return Expression(self.tensor - other.tensor)

    def __mul__(self, other: Any) -> Expression:
        return Expression(self.tensor @ other.tensor if isinstance(other, Expression) else self.tensor * other)


class ParameterCollection:
    def __init__(self) -> None:
        self.parameters: list[torch.Tensor] = []

    def parameters_from_numpy(self, array: np.ndarray) -> Expression:
        self.parameters.append(torch.tensor(array, dtype=torch.float64).requires_grad_())
        return Expression(self.parameters[-1])

    def lookup_parameters_from_numpy(self, array: np.ndarray) -> Expression:
        """DyNet fills a row from its values column by column."""
        return self.parameters_from_numpy(array if array.ndim == 2 else array.transpose(0, 2, 1))


class SimpleSGDTrainer:
    def __init__(self, collection: ParameterCollection, rate: float) -> None:
        assert rate == 0
        self._collection = collection

    def update(self) -> None:
        for parameter in self._collection.parameters:
            parameter.grad = None


def renew_cg() -> None:
    pass


def forward(expressions: list[Expression]) -> None:
    assert expressions


def zeros(shape: tuple[int, ...]) -> Expression:
    return Expression(torch.zeros(shape, dtype=torch.float64))


def lookup(table: Expression, row: int, update: bool) -> Expression:
    found = table.tensor[row]
    return Expression(found if update else found.detach())


def logistic(x: Expression) -> Expression:
    return Expression(torch.sigmoid(x.tensor))


def tanh(x: Expression) -> Expression:
    return Expression(torch.tanh(x.tensor))


def cmult(x: Expression, y: Expression) -> Expression:
    return Expression(x.tensor * y.tensor)


def pick_range(x: Expression, begin: int, end: int) -> Expression:
    return Expression(x.tensor[begin:end])


def pickneglogsoftmax(x: Expression, label: int) -> Expression:
    return Expression(torch.nn.functional.cross_entropy(x.tensor, torch.tensor(label)))


def concatenate(parts: list[Expression]) -> Expression:
    return Expression(torch.cat([part.tensor for part in parts]))


def affine_transform(terms: list[Expression]) -> Expression:
    total = terms[0].tensor
    for matrix, x in zip(terms[1::2], terms[2::2], strict=True):
        total = total + matrix.tensor @ x.tensor
    return Expression(total)


def _stacked(parts: list[Expression]) -> torch.Tensor:
    return torch.stack([part.tensor for part in parts])


def esum(parts: list[Expression]) -> Expression:
    return Expression(_stacked(parts).sum(0))


def average(parts: list[Expression]) -> Expression:
    return Expression(_stacked(parts).mean(0))


def emax(parts: list[Expression]) -> Expression:
    return Expression(_stacked(parts).amax(0))
