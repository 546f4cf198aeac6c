"""PyTorch operators that TVM's importer gets wrong or does not know, on numbers and special values, against PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.errors import CellError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

NAN, INF = float("nan"), float("inf")
X = torch.tensor([[1.0, 0.0, -0.0, NAN, INF, -INF, -3.0, 2.0], [5.5, -5.5, 0.5, 1e15, -1e-30, 7.0, 2.0, -2.0]])
Y = torch.tensor([[2.0, 0.0, NAN, NAN, INF, 3.0, -INF, -1.5], [2.0, 2.0, -3.0, 7.0, 1.0, INF, 2.0, -0.5]])
PLAIN = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4).sin()
INDEX = torch.tensor([[1, 0], [0, 1]])
EDGES = torch.tensor([[1.0, INF, -2.0, 3.0], [1.0, 2.0, 0.5, -INF], [-1.0, 4.0, 0.25, 2.0]])
EDGES3 = torch.cat([EDGES, PLAIN[0]]).reshape(3, 2, 4)
BATCH = torch.cat([EDGES, PLAIN[0]])
WEIGHT = torch.tensor([1.0, 2.0, INF, 0.0])
GRID = torch.tensor(
    [[INF, 0.0], [0.1, -INF], [NAN, 0.2], [1e15, -0.3], [-1.0, 1.0], [0.7, -2.4], [0.0, 0.0], [-0.4, 0.55]]
).reshape(1, 2, 4, 2)
SAMPLED = (EDGES[None, None], GRID)
WIDE = (torch.arange(64.0).sin().reshape(2, 32), torch.arange(64.0).cos().reshape(2, 32))
SPECIAL = torch.tensor([0.0, -0.0, NAN, INF, -INF, 1.0, -1.0, 3.5, -2.5, 3e38, -1e-30])
PAIRS = SPECIAL.repeat(len(SPECIAL), 1)
SMALL = torch.tensor([3.2e-7, -1e-10, 1e-4, -0.003, 0.3])

CASES: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "logical_not": (torch.logical_not, (X,)),
    "logical_and": (torch.logical_and, (X, Y)),
    "logical_or": (torch.logical_or, (X, Y)),
    "logical_xor": (torch.logical_xor, (X, Y)),
    "product of truths": (lambda x, y: (x > 0) * (y > 0), (X, Y)),
    "equal truths": (lambda x, y: (x > 0) == (y > 0), (X, Y)),
    "unequal truths": (lambda x, y: (x > 0) != (y > 0), (X, Y)),
    "unequal": (torch.ne, (X, Y)),
    "any": (torch.any, (X,)),
    "any of a dimension": (lambda x: x.any(-1, keepdim=True), (X,)),
    "remainder": (torch.remainder, (X, Y)),
    "remainder of a number": (lambda x: torch.remainder(x, -2.5), (X,)),
    "floor division": (lambda x, y: torch.div(x, y, rounding_mode="floor"), (X, Y)),
    "truncating division": (lambda x, y: torch.div(x, y, rounding_mode="trunc"), (X, Y)),
    "heaviside": (torch.heaviside, (X, Y)),
    "where of two dtypes": (lambda x: torch.where(x > 0, x, torch.ones(8, dtype=torch.int64)), (X,)),
    "clamp by a wider tensor": (lambda x, y: x.clamp(y), (PLAIN[0], PLAIN)),
    "clamp by integers": (lambda x: x.clamp_min(torch.zeros(4, dtype=torch.int32)), (PLAIN,)),
    "argmax": (torch.argmax, (X,)),
    "argmin of a dimension": (lambda x: x.argmin(1, keepdim=True), (X,)),
    "argmax of -inf": (torch.argmax, (torch.full((4,), -INF),)),
    "max with its index": (lambda x: x.max(1), (PLAIN,)),
    "min with its index": (lambda x: x.min(-1, keepdim=True), (PLAIN,)),
    "product": (lambda x: x.prod(1), (PLAIN,)),
    "softmax of a number": (lambda x: torch.softmax(x, 0), (torch.tensor(3.0),)),
    "gather with other integers": (lambda x: x.gather(1, INDEX.to(torch.int32)), (PLAIN[0, :2],)),
    "indices apart": (lambda x: x[INDEX, :, INDEX], (PLAIN,)),
    "indices side by side": (lambda x: x[:, INDEX, INDEX], (PLAIN,)),
    "indices that broadcast": (lambda x: x[:, torch.tensor([[0], [2]]), torch.tensor([3, 1, 0])], (PLAIN,)),
    "an index that is computed": (lambda x: x[(x[:, 0, 0].abs() * 2).long() - 2], (PLAIN,)),
    "constants from the end": (lambda x: x[torch.tensor([-1, 0]), torch.tensor([2, -3])], (PLAIN,)),
    "sorted": (lambda x: x.sort(-1), (X,)),
    "sorted from the greatest": (lambda x: x.sort(dim=0, descending=True, stable=True), (X,)),
    "sorted places": (lambda x: x.argsort(dim=1, stable=True), (X,)),
    "sorted truths": (lambda x: (x > 0).sort(dim=1, stable=True)[1], (PLAIN,)),
    "the three greatest": (lambda x: x.topk(3, 1), (PLAIN,)),
    "the two least": (lambda x: x.topk(2, 0, largest=False)[0], (Y.T[[0, 5, 6, 7]].contiguous(),)),
    "median": (torch.median, (PLAIN,)),
    "median of a dimension": (lambda x: x.median(1), (torch.cat([X, PLAIN[0].reshape(1, 12)[:, :8]]),)),
    "sums so far": (lambda x: x.cumsum(1), (X,)),
    "one hot": (lambda x: nn.functional.one_hot(x.argmax(1), 3).float(), (PLAIN,)),
    "truths so far": (lambda x: (x > 0).cumsum(0), (X,)),
    "products so far": (lambda x: x.cumprod(-1), (Y,)),
    "scatter": (lambda x, y: x.scatter(1, INDEX, y), (X, Y)),
    "scatter of a number": (lambda x: x.scatter(0, INDEX, 7.0), (X,)),
    "scatter, added": (lambda x, y: x.scatter_add(1, INDEX * 0 + 2, y), (X, Y)),
    "scatter, multiplied": (lambda x, y: x.scatter_reduce(1, INDEX, y, "prod", include_self=False), (X, Y)),
    "scatter, mean": (lambda x, y: x.scatter_reduce(1, INDEX * 0 + 1, y, "mean"), (PLAIN[0], PLAIN[1])),
    "scatter, greatest": (lambda x, y: x.scatter_reduce(1, INDEX * 0, y, "amax"), (PLAIN[0], PLAIN[1])),
    "written rows": (lambda x, y: x.index_put((torch.tensor([0, -1]),), y), (PLAIN, PLAIN[:, :1])),
    "written elements": (lambda x: x.index_put((INDEX, INDEX + 1), torch.tensor(3.0)), (PLAIN[0],)),
    "written columns": (lambda x, y: torch.ops.aten.index_put(x, [None, None, INDEX[0]], y), (PLAIN, PLAIN[:, :, 2:])),
    "added rows": (lambda x, y: x.index_add(0, torch.tensor([1, 1]), y, alpha=2), (PLAIN, PLAIN)),
    "written by a mask": (lambda x: x.index_put((x > 0,), torch.tensor(-1.0)), (X,)),
    "scattered by a mask": (lambda x, y: x.masked_scatter(x > 0, y), (X, Y)),
    "strided": (lambda x: x.as_strided((3, 2), (2, 5), 4), (PLAIN,)),
    "one part": (lambda x: x.split(2), (PLAIN,)),
    "unequal parts": (lambda x: x.split([1, 3], -1), (PLAIN,)),
    "quantile": (lambda x: x.quantile(0.4, dim=1), (PLAIN,)),
    "reflected": (lambda x: nn.functional.pad(x, (1, 2), mode="reflect"), (PLAIN,)),
    "replicated": (lambda x: nn.functional.pad(x, (1, 2), mode="replicate"), (PLAIN,)),
    "nearest with a scale": (lambda x: nn.functional.interpolate(x[None], scale_factor=1.7), (PLAIN,)),
    "bilinear with a scale": (
        lambda x: nn.functional.interpolate(x[None], scale_factor=1.7, mode="bilinear"),
        (PLAIN,),
    ),
    "batch statistics": (lambda x: nn.functional.batch_norm(x, None, None, training=True), (PLAIN,)),
    "sampled at a grid in each mode": (
        lambda x, grid: [torch.grid_sampler_2d(x, grid, k, k, k == 1) for k in range(3)],
        SAMPLED,
    ),
    "sampled at a grid, padded otherwise": (
        lambda x, grid: [torch.grid_sampler_2d(x, grid, k, (k + 1) % 3, k == 0) for k in range(3)],
        SAMPLED,
    ),
    "sampled at a grid, padded the third way": (
        lambda x, grid: [torch.grid_sampler_2d(x, grid, k, (k + 2) % 3, k == 2) for k in range(3)],
        SAMPLED,
    ),
    "bicubic with infinities": (
        lambda x: (
            nn.functional.interpolate(x, size=(2, 7), mode="bicubic", align_corners=True),
            nn.functional.interpolate(x, scale_factor=1.7, mode="bicubic"),
            torch.ops.aten.upsample_bicubic2d(x, (5, 3), False, 1.6, None),
        ),
        (EDGES[None, None],),
    ),
    "bilinear": (
        lambda x: nn.functional.bilinear(x[:, 0, :2], x[:, 1, 2:], torch.linspace(-1, 1, 12).view(3, 2, 2)),
        (PLAIN,),
    ),
    "_trilinear": (
        lambda x: torch.ops.aten._trilinear(x, x + 1, x * 2, [0], [1], [2], [0, 2]),
        (PLAIN[:, 0, :2],),
    ),
    "trilinear": (lambda x: nn.functional.interpolate(x[None, None], scale_factor=1.6, mode="trilinear"), (PLAIN,)),
    "mean beside a variance": (lambda x: torch.var_mean(x, 1), (EDGES,)),
    "group_norm of infinities": (lambda x: torch.ops.aten.native_group_norm(x, None, None, 3, 1, 4, 1, 0.1), (EDGES,)),
    "the greater, NaN left out": (lambda x, y: (torch.fmax(x, y), torch.fmin(x, y)), (PAIRS, PAIRS.T)),
    "powers of two": (
        lambda x, y: (torch.exp2(x), torch.ldexp(y, x.clamp(-20, 20).round()), torch.logaddexp2(x, y)),
        (PAIRS, PAIRS.T),
    ),
    "selu": (nn.functional.selu, (X,)),
    "celu": (lambda x: nn.functional.celu(x, 0.5), (X,)),
    "expm1 of small numbers": (lambda x: torch.expm1(x) * 1e10, (SMALL,)),
    "log1p of small numbers": (lambda x: torch.log1p(x) * 1e10, (SMALL,)),
    "log1p": (torch.log1p, (X,)),
    "mish": (nn.functional.mish, (X,)),
    "soft margin": (lambda x, y: nn.functional.soft_margin_loss(x, y, reduction="none"), (X, Y)),
    "multi margin with NaN": (lambda x: nn.functional.multi_margin_loss(x, torch.tensor([0, 6])), (X,)),
    "gradient of a softmax": (lambda x, y: torch.ops.aten._softmax_backward_data(x, y, -1, torch.float32), (X, Y)),
    "floor division by infinities": (lambda x, y: torch.floor_divide(x, y), (PLAIN, EDGES)),
    "the largest of windows of -inf": (
        lambda x: nn.functional.max_pool2d(x, 2, 2, 1, ceil_mode=True),
        (torch.full((1, 3, 4), -INF),),
    ),
    "the largest of windows": (lambda x: nn.functional.max_pool1d(x, 3, 2, 1, 2), (PLAIN,)),
    "the largest of blocks": (lambda x: nn.functional.max_pool3d(x, 2, 1, 1), (PLAIN[None],)),
    "transposed convolution": (lambda x, y: nn.functional.conv_transpose1d(x, y, None, 2, 1, 1, 1, 2), (PLAIN, EDGES3)),
    "transposed convolution of planes": (
        lambda x, y: nn.functional.conv_transpose2d(x, y, None, 2, 1, 1, 2),
        (PLAIN[:, None, :2].reshape(1, 2, 2, 4), EDGES3.reshape(2, 3, 2, 2)),
    ),
    "linear with infinities": (lambda x: nn.functional.interpolate(x, size=7, mode="linear"), (EDGES[None],)),
    "bilinear with infinities": (
        lambda x: nn.functional.interpolate(x, size=(5, 3), mode="bilinear", align_corners=True),
        (EDGES[None, None],),
    ),
    "lower triangle": (lambda x: (x.tril(), x.tril(2), x.tril(-1)), (X,)),
    "upper triangle": (lambda x: (x.triu(), x.triu(2), x.triu(-1)), (X,)),
    "batch statistics with infinities": (
        lambda x: torch.native_batch_norm(x, WEIGHT, WEIGHT, None, None, True, 0.1, 1e-5),
        (BATCH,),
    ),
    "running statistics with infinities": (
        lambda x, mean, variance: torch.ops.aten._native_batch_norm_legit_functional(
            x, None, None, mean, variance, True, 0.1, 1e-5
        ),
        (BATCH, torch.ones(4), torch.tensor([1.0, INF, 2.0, 3.0])),
    ),
    "batch_norm by what was learned": (
        lambda x, mean, variance: nn.functional.batch_norm(x, mean, variance, WEIGHT, None),
        (BATCH, torch.tensor([1.0, -INF, 2.0, 0.5]), torch.tensor([1.0, INF, 2.0, 3.0])),
    ),
    "batch_norm of planes": (lambda x: nn.functional.batch_norm(x[None], None, None, training=True), (EDGES3,)),
    "instance_norm with infinite weights": (
        lambda x: nn.functional.instance_norm(x, weight=WEIGHT, bias=WEIGHT.flip(0)),
        (BATCH[:, :, None] * torch.tensor([1.0, -2.0]),),
    ),
    "layer_norm with its statistics": (
        lambda x: torch.native_layer_norm(x, [4], None, torch.ones(4), 1e-5),
        (BATCH,),
    ),
    "layer_norm of planes": (lambda x: torch.native_layer_norm(x, [3, 4], None, None, 0.1), (PLAIN,)),
    "distances": (
        lambda x, y: [torch.cdist(x, y, p) for p in (0.0, 1.0, 2.0, 3.0, INF)],
        (PLAIN, torch.cat([PLAIN, BATCH[None, 1:4]])[1:]),
    ),
    "distances of special values": (
        lambda x, y: [torch.cdist(x, y, p, "donot_use_mm_for_euclid_dist") for p in (0.0, 1.0, 2.0, 3.0, INF)],
        (X, torch.cat([X, Y])),
    ),
    "extremes of a number": (lambda x: (x.amax(), x.amin(), torch.aminmax(x, dim=0)), (torch.tensor(-3.0),)),
    "sampled at a grid": (lambda x, grid: torch.grid_sampler_2d(x, grid, 0, 0, False), SAMPLED),
    "reductions of a number": (
        lambda x: (x.sum(0), x.mean(0, True), x.logsumexp(0), x.index_select(0, torch.tensor([0])), x.prod(0)),
        (torch.tensor(-3.0),),
    ),
    "scatter, least of the new ones": (
        lambda x, y: x.scatter_reduce(1, INDEX, y, "amin", include_self=False),
        (X, Y),
    ),
    "filled with infinities": (lambda x: x + torch.full((4,), -INF) * torch.full_like(x, NAN).isnan(), (PLAIN,)),
    "labels of each row": (
        lambda x: nn.functional.multilabel_margin_loss(x, torch.tensor([[3, 0, -1, 1], [1, -1, 0, 2]])),
        (PLAIN[:, 0],),
    ),
    "labels of each row, with NaN": (
        lambda x: nn.functional.multilabel_margin_loss(x, torch.tensor([[3, 0, -1, 1], [1, -1, 0, 2]])),
        (torch.where(torch.arange(8).reshape(2, 4) % 3 == 1, NAN, PLAIN[:, 0]),),
    ),
    "group_norm without weights": (lambda x: nn.functional.group_norm(x[:, :2], 2), (PLAIN,)),
    "bits of truths": (lambda x, y: (~(x > 0), (x > 0) & (y > 0), (x > 0) | (y > 0), (x > 0) ^ (y > 0)), WIDE),
    "choices of truths": (
        lambda x, y: (
            torch.where(x > 0, y > 0, ~(x > 0)),
            (y > 0).masked_fill(x > 0, False),
            torch.where(x[:1] > 0, x > 0, torch.ones(32, dtype=torch.bool)),
        ),
        WIDE,
    ),
    "copies of truths": (
        lambda x, y: (
            (x.reshape(4, 16) > 0).reshape(64).any(),
            torch.cat([x > 0, y > 0]).flip(0),
            (x > 0).t().reshape(2, 32),
            (x[:, None] != 0).expand(2, 3, 32).all(-1),
            (x > 0)[:, 16:].clone(),
        ),
        WIDE,
    ),
}


class Apply(nn.Module):
    """Functions of tensors, each of its own; all results, one after another, as float32."""

    def __init__(self, *functions: Callable[..., Any], counts: tuple[int, ...] = (1,)) -> None:
        super().__init__()
        self.functions, self.counts = functions, counts

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = iter(inputs)
        found = [
            function(*[next(given) for _ in range(count)])
            for function, count in zip(self.functions, self.counts, strict=True)
        ]
        return tuple(
            one + 0 if one.dtype == torch.float32 else one.to(torch.float32)
            for one in torch.utils._pytree.tree_leaves(found)
        )


LAST = list(CASES).index("mean beside a variance")
CELL = 6
"""Cases that share a cell, since each export takes a second."""


@pytest.mark.parametrize("part", ["last", pytest.param("first", marks=pytest.mark.slow)])
def test_results_are_those_of_pytorch(part: str) -> None:
    names = list(CASES)[LAST:] if part == "last" else list(CASES)[:LAST]
    groups = {f"c{first}": names[first : first + CELL] for first in range(0, len(names), CELL)}
    modules = {
        cell: Apply(*[CASES[name][0] for name in group], counts=tuple(len(CASES[name][1]) for name in group))
        for cell, group in groups.items()
    }
    inputs = {cell: tuple(one for name in group for one in CASES[name][1]) for cell, group in groups.items()}
    model = eb.compile(*eb.cells_from_torch(modules, inputs))
    b = model.builder()
    instances = []
    for cell, tensors in inputs.items():
        value = b.call(cell, *[tensor.numpy() for tensor in tensors])
        instances.append(b.finish(list(value) if isinstance(value, tuple) else [value]))
    wrong = []
    for group, result in zip(groups.values(), model(instances), strict=True):
        given = iter(result)
        for name in group:
            function, tensors = CASES[name]
            for number, wanted in enumerate(Apply(function, counts=(len(tensors),))(*tensors)):
                found = next(given)
                if not np.allclose(found, wanted.numpy(), rtol=2e-6, atol=1e-6, equal_nan=True):
                    wrong.append(f"{name}, result {number}: {found} instead of {wanted.numpy()}")
        assert not list(given)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: nn.functional.avg_pool2d(x, 2, divisor_override=3), "divisor_override"),
        (lambda x: nn.functional.max_pool2d(x, 2, return_indices=True)[1].float(), "the indices of max_pool"),
        (lambda x: nn.functional.interpolate(x[None], (2, 2), mode="bilinear", antialias=True), "antialias"),
        (lambda x: torch.empty_like(x), "memory that nobody wrote"),
        (lambda x: x.bfloat16().float(), "a cast to bfloat16"),
    ],
)
def test_what_would_come_out_wrong_is_refused(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(CellError, match=message):
        eb.cells_from_torch({"cell": Apply(function)}, {"cell": (PLAIN,)})
