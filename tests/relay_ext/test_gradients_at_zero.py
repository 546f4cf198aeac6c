"""Gradients of norms, deviations and what consists of them, at vectors where a root is 0: those of PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import edbatch_tvm as eb

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

N = 4

FORMS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "normalize": lambda x: F.normalize(x, dim=-1),
    "normalize of order 3": lambda x: F.normalize(x, p=3.0, dim=-1),
    "norm": lambda x: torch.linalg.vector_norm(x, dim=-1, keepdim=True),
    "norm of everything": lambda x: x.norm(),
    "norm of order 1": lambda x: x.norm(1),
    "norm of order 3": lambda x: torch.linalg.vector_norm(x, 3, dim=-1),
    "norm of order 4": lambda x: x.norm(4),
    "largest": lambda x: x.norm(float("inf")),
    "norms of numbers": lambda x: torch.linalg.vector_norm(x.unsqueeze(-1), dim=-1),
    "deviation": lambda x: x.std(),
    "deviation of a dimension": lambda x: x.std(-1, unbiased=False, keepdim=True),
    "deviation, corrected": lambda x: x.std(-1, correction=2),
    "deviation beside the mean": lambda x: sum(torch.std_mean(x, -1)),
    "cosine": lambda x: F.cosine_similarity(x, x * 0 + 1, dim=-1),
    "distance": lambda x: F.pairwise_distance(x, x * 0),
    "distances": lambda x: torch.cdist(x.view(2, 2), x.view(2, 2)),
    "root": lambda x: (x * x).sum(-1).sqrt(),
}


class Form(nn.Module):
    def __init__(self, form: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.form = form

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.form(x)


@pytest.fixture(scope="module")
def model() -> eb.Model:
    modules = {f"cell{place}": Form(form) for place, form in enumerate(FORMS.values())}
    cells = eb.cells_from_torch(modules, {name: (torch.randn(N),) for name in modules})
    return eb.compile(*cells, training=True)


@pytest.mark.parametrize("name", FORMS)
def test_gradients_are_those_of_pytorch(name: str, model: eb.Model) -> None:
    form = FORMS[name]
    for row in ([0.0] * N, [2.0] * N, [0.0, 0.0, 3.0, -4.0], [1.0, -2.0, 0.5, 3.0]):
        builder = model.builder()
        result = model([builder.finish(builder.call(f"cell{list(FORMS).index(name)}", np.array(row, "float32")))])
        value = result.graph.outputs.tolist()[0]
        found = result.backward({value: np.ones(result.value(value).shape, "float32")}).external[0][0]
        x = torch.tensor(row, requires_grad=True)
        wanted = form(x)
        wanted.sum().backward()
        np.testing.assert_allclose(result.value(value), wanted.detach().numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found, x.grad.numpy(), rtol=1e-5, atol=1e-5, err_msg=str(row))
