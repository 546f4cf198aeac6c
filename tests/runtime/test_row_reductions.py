"""Reductions over variadic rows in stages, attention above all: equal to PyTorch in float64 for all numbers of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import edbatch_tvm as eb
from relay_ext.signature import signature_of
from relay_ext.stage_cells import stages_of
from tests.relay_ext.conftest import lower_to

HEADS = 2

ROWS = (0, 1, 2, 3, 8, 17, 0, 70)

Form = Callable[["Cell", torch.Tensor, torch.Tensor], torch.Tensor]


class Cell(nn.Module):
    """A form with the layers that forms use."""

    def __init__(self, form: Form, width: int) -> None:
        super().__init__()
        self.form = form
        self.width = width
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.score = nn.Linear(width, 1)
        self.heads = nn.MultiheadAttention(width, HEADS)

    def forward(self, q: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return self.form(self, q, rows)


def _attend(scores: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return torch.softmax(scores, 0) @ rows


def _heads(m: Cell, q: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    parts = rows.view(-1, HEADS, m.width // HEADS)
    weights = torch.softmax((parts * q.view(HEADS, -1)).sum(-1), 0)
    return (weights.unsqueeze(-1) * parts).sum(0).reshape(m.width)


def _heads_first(m: Cell, q: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    keys = rows.view(-1, HEADS, m.width // HEADS).transpose(0, 1)
    weights = torch.softmax((keys @ q.view(HEADS, -1, 1)).squeeze(-1) / 3, -1)
    return (weights.unsqueeze(1) @ keys).reshape(m.width)


def _einsum(m: Cell, q: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    parts = rows.view(-1, HEADS, m.width // HEADS)
    weights = torch.softmax(torch.einsum("khd,hd->kh", parts, q.view(HEADS, -1)), 0)
    return torch.einsum("kh,khd->hd", weights, parts).reshape(m.width)


def _scaled_dot_product(m: Cell, q: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    keys = rows.view(-1, HEADS, m.width // HEADS).transpose(0, 1)
    return F.scaled_dot_product_attention(q.view(HEADS, 1, -1), keys, keys).reshape(m.width)


ATTENTION: dict[str, Form] = {
    "plain": lambda m, q, rows: _attend(rows @ q, rows),
    "scaled": lambda m, q, rows: _attend(rows @ q / 5, rows),
    "projected": lambda m, q, rows: _attend(m.key(rows) @ m.query(q), m.value(rows)),
    "additive": lambda m, q, rows: _attend(m.score(torch.tanh(m.key(rows) + m.query(q))).squeeze(-1), rows),
    "gate": lambda m, q, rows: (torch.sigmoid(m.score(rows)) * rows).sum(0),
    "cosine": lambda m, q, rows: _attend(F.cosine_similarity(rows, q.unsqueeze(0), dim=-1), rows),
    "then_linear": lambda m, q, rows: torch.tanh(m.value(_attend(rows @ m.query(q), rows))),
    "heads": _heads,
    "heads_first": _heads_first,
    "einsum": _einsum,
    "by_column": lambda m, q, rows: (torch.softmax(rows, 0) * rows).sum(0),
    "sum": lambda m, q, rows: rows.sum(0) + q,
    "prod": lambda m, q, rows: torch.prod(rows, 0),
    "score_of_sum": lambda m, q, rows: _attend(rows @ rows.sum(0) / m.width, rows),
    "norms": lambda m, q, rows: (rows * rows).sum(-1).sqrt().sum(0) * q,
}
"""Defined for no rows as well."""

OTHERS: dict[str, Form] = {
    "scaled_dot_product": _scaled_dot_product,
    "multihead": lambda m, q, rows: m.heads(q[None], rows, rows, need_weights=False)[0][0],
    "mean": lambda m, q, rows: rows.mean(0),
    "max": lambda m, q, rows: rows.amax(0),
    "min_of_linear": lambda m, q, rows: torch.tanh(m.key(rows)).amin(0),
    "logsumexp": lambda m, q, rows: torch.logsumexp(rows, 0),
    "logsumexp_of_scores": lambda m, q, rows: torch.logsumexp(rows @ q, 0),
    "best_score": lambda m, q, rows: (rows @ q).amax(0) * q,
}

FORMS = ATTENTION | OTHERS

SCALED_IN_FLOAT32 = ("scaled_dot_product", "multihead")
"""PyTorch writes the root of the width into what it exports as a float32 number."""


def _model(width: int, target: Any, dtype: str, forms: dict[str, Form]) -> tuple[Any, dict[str, Cell]]:
    torch.manual_seed(0)
    modules = {name: Cell(form, width).eval().requires_grad_(False) for name, form in forms.items()}
    examples = {name: (torch.randn(width), torch.randn(3, width)) for name in forms}
    mod, weights = eb.cells_from_torch(modules, examples, variadic={name: ["rows"] for name in forms})
    return eb.compile(mod, weights, target=target, dtype=dtype), modules


HASWELL = {"kind": "llvm", "mcpu": "haswell"}


@pytest.mark.parametrize(
    ("width", "target", "dtype"),
    [
        (22, "llvm", "float32"),
        *(
            pytest.param(width, target, dtype, marks=pytest.mark.slow)
            for width, target, dtype in [
                *((width, HASWELL, "float32") for width in (2, 6, 16, 70, 300)),
                *((width, "llvm", "float32") for width in (2, 32, 100, 300)),
                *((width, HASWELL, "float64") for width in (2, 12, 70)),
                (22, "llvm", "float64"),
            ]
        ),
    ],
)
def test_every_form_is_a_stage_and_right(width: int, target: Any, dtype: str) -> None:
    model, modules = _model(width, target, dtype, FORMS)
    assert set(model.paths.values()) == {"stage"}
    rng = np.random.default_rng(1)
    for name, module in modules.items():
        counts = ROWS if name in ATTENTION else [max(1, count) for count in ROWS]
        given = [(rng.normal(size=width).astype(dtype), rng.normal(size=(k, width)).astype(dtype)) for k in counts]
        builder = model.builder()
        results = model([builder.finish(builder.call(name, q, list(rows))) for q, rows in given])
        module.double()
        for (q, rows), result in zip(given, results, strict=True):
            expected = module(torch.from_numpy(q).double(), torch.from_numpy(rows).double()).numpy()
            size = max(1.0, float(np.abs(expected).max()))
            error = float(np.abs(np.asarray(result).reshape(expected.shape) - expected).max()) / size
            exact = dtype == "float64" and name not in SCALED_IN_FLOAT32
            assert error < (1e-13 if exact else 1e-5), (name, len(rows), error)


def test_attention_is_one_stage() -> None:
    """A product with weights is one more: over the rows, of the query, of the result."""
    torch.manual_seed(0)
    modules = {name: Cell(form, 20).eval() for name, form in FORMS.items()}
    examples = {name: (torch.randn(20), torch.randn(3, 20)) for name in FORMS}
    mod, _ = eb.cells_from_torch(modules, examples, variadic={name: ["rows"] for name in FORMS})
    cells, signature = lower_to(mod, "FuseCells"), signature_of(mod)
    counts = {name: len(stages_of(cells[name], signature)) for name in FORMS}
    one = {name for name, count in counts.items() if count == 1}
    assert one >= {
        "cosine",
        "plain",
        "scaled",
        "gate",
        "heads",
        "by_column",
        "logsumexp",
        "logsumexp_of_scores",
        "score_of_sum",
    }
    assert (counts["additive"], counts["then_linear"], counts["projected"]) == (3, 3, 4)


def test_special_values_are_those_of_pytorch() -> None:
    width = 10
    forms = {name: FORMS[name] for name in ("plain", "by_column", "max", "prod", "norms", "scaled_dot_product")}
    model, modules = _model(width, "llvm", "float32", forms)
    rng = np.random.default_rng(2)
    special = (np.nan, np.inf, -np.inf, 3e38, 0.0, -0.0, 1e-41)
    for name, module in modules.items():
        given = []
        for number in range(30):
            rows = rng.normal(size=(1 + number % 5, width)).astype("float32")
            rows[rng.integers(0, len(rows)), rng.integers(0, width)] = rng.choice(special)
            given.append((rng.normal(size=width).astype("float32"), rows))
        builder = model.builder()
        results = model([builder.finish(builder.call(name, q, list(rows))) for q, rows in given])
        for (q, rows), result in zip(given, results, strict=True):
            expected = module(torch.from_numpy(q), torch.from_numpy(rows)).numpy()
            np.testing.assert_allclose(np.asarray(result), expected, rtol=2e-5, atol=1e-6, err_msg=f"{name} of {rows}")
