"""Cells over variadic rows: for no rows and for one they are what PyTorch computes, or refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.errors import CellError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.functional import scaled_dot_product_attention, softmax  # noqa: E402

H = 4

Form = Callable[["torch.Tensor"], "torch.Tensor"]

BRANCHES: dict[str, tuple[str, Form]] = {
    "a number for no rows": ("no rows", lambda x: x.sum(0) if len(x) else torch.ones(H)),
    "no maximum of no rows": ("no rows", lambda x: x.amax(0) if x.shape[0] > 0 else torch.zeros(H)),
    "a row as it is": ("one row", lambda x: x[0] * 2 if len(x) == 1 else x.sum(0)),
    "a row that is squeezed": ("one row", lambda x: x.unsqueeze(0).squeeze().sum(0)),
    "a row that is squeezed and reduced": ("one row", lambda x: x.squeeze().sum(0).amax(-1)),
}

ALIKE: dict[str, Form] = {
    "any": lambda x: (x > 0).any(0).to(x.dtype),
    "all": lambda x: (x > 0).all(0).to(x.dtype),
    "every one of all": lambda x: (x > -9).all().to(x.dtype),
    "variance": lambda x: x.var(0, unbiased=False),
    "variance of columns": lambda x: x.var(-1, unbiased=False).sum(0),
    "differences": lambda x: torch.diff(x, dim=-1).sum(0),
    "columns from the end": lambda x: x.narrow(-1, 1, 2).sum(0),
    "one head": lambda x: (x.view(-1, 1, H) * softmax(x.view(-1, 1, H), 0)).sum(0),
    "squeezed columns": lambda x: softmax(x[:, :1].squeeze(-1), 0) @ x,
    "squeezed before": lambda x: x.unsqueeze(0).squeeze(0).sum(0),
}


class Rows(nn.Module):
    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.form(rows)


@pytest.mark.parametrize("name", BRANCHES)
def test_a_cell_that_branches_on_the_number_of_rows_is_refused(name: str) -> None:
    which, form = BRANCHES[name]
    with pytest.raises(CellError, match=f"does something else for {which} than for several"):
        eb.cells_from_torch({"cell": Rows(form)}, {"cell": (torch.randn(3, H),)}, {"cell": ["rows"]})


@pytest.mark.filterwarnings("ignore:.*degrees of freedom")
def test_few_rows_are_those_of_pytorch() -> None:
    example = (torch.randn(3, H),)
    modules = {f"cell{place}": Rows(form) for place, form in enumerate(ALIKE.values())}
    cells = eb.cells_from_torch(modules, dict.fromkeys(modules, example), {name: ["rows"] for name in modules})
    model = eb.compile(*cells)
    rng = np.random.default_rng(0)
    given = [rng.normal(size=(count, H)).astype("float32") for count in (0, 1, 2, 3, 5, 0)]
    for (name, module), what in zip(modules.items(), ALIKE, strict=True):
        builder = model.builder()
        results = model([builder.finish(builder.call(name, list(rows))) for rows in given])
        for rows, result in zip(given, results, strict=True):
            wanted = module(torch.from_numpy(rows).double()).numpy()
            np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-6, err_msg=f"{what} of {len(rows)} rows")


def test_no_rows_of_a_maximum_and_of_attention_are_no_branch() -> None:
    forms: list[Form] = [
        lambda x: x.amax(0),
        lambda x: x.max(0)[0] + x.min(0).values,
        lambda x: scaled_dot_product_attention(x[:1] * 0 + x.sum(0), x, x).sum(0),
        lambda x: (softmax(x @ x.sum(0), 0) @ x) / 2,
    ]
    for form in forms:
        eb.cells_from_torch({"cell": Rows(form)}, {"cell": (torch.randn(3, H),)}, {"cell": ["rows"]})


def test_statistics_in_buffers_stay() -> None:
    class Counting(Rows):
        def __init__(self) -> None:
            super().__init__(lambda x: x.sum(0))
            self.register_buffer("seen", torch.zeros(H))

        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return self.form(rows) + self.seen

    module = Counting()
    eb.cells_from_torch({"cell": module}, {"cell": (torch.randn(3, H),)}, {"cell": ["rows"]})
    assert not module.seen.any()
