"""Constructs on recorded tensors, by name: methods of tensors, functions and layers of ``torch.nn``, and idioms."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

Construct = Callable[[Any, Any, Any, Any], Any]
"""Of the model, two recorded tensors of shape [1, 8], and the element, a tensor of shape [n, 8]."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


WIDTH = 8
"""Width of the recorded values."""


def layers() -> Iterator[tuple[str, nn.Module]]:
    yield "Dropout", nn.Dropout(0.5)
    yield "LayerNorm", nn.LayerNorm(WIDTH)
    yield "BatchNorm1d", nn.BatchNorm1d(WIDTH)
    yield "GroupNorm", nn.GroupNorm(2, WIDTH)
    yield "RMSNorm", nn.RMSNorm(WIDTH)
    yield "Linear", nn.Linear(WIDTH, 3)
    yield "LSTMCell", nn.LSTMCell(WIDTH, WIDTH)
    yield "GRUCell", nn.GRUCell(WIDTH, WIDTH)
    yield "RNNCell", nn.RNNCell(WIDTH, WIDTH)
    yield "Bilinear", nn.Bilinear(WIDTH, WIDTH, 4)
    yield "Conv1d", nn.Conv1d(WIDTH, WIDTH, 1)
    yield "LSTM", nn.LSTM(WIDTH, WIDTH)
    yield "GRU", nn.GRU(WIDTH, WIDTH)
    yield "MultiheadAttention", nn.MultiheadAttention(WIDTH, 2)
    for name in (
        "ReLU",
        "ReLU6",
        "ELU",
        "SELU",
        "CELU",
        "GELU",
        "SiLU",
        "Mish",
        "Hardtanh",
        "Hardsigmoid",
        "Hardswish",
    ):
        yield name, getattr(nn, name)()
    for name in (
        "LeakyReLU",
        "LogSigmoid",
        "PReLU",
        "Sigmoid",
        "Softplus",
        "Softshrink",
        "Softsign",
        "Tanh",
        "Identity",
    ):
        yield name, getattr(nn, name)()
    yield "Softmax", nn.Softmax(1)
    yield "LogSoftmax", nn.LogSoftmax(1)
    yield "ReLU in place", nn.ReLU(inplace=True)


def _oflayers() -> Iterator[tuple[str, Construct]]:
    two = {
        "LSTMCell": lambda m, h, g: m(h, (g, g)),
        "GRUCell": lambda m, h, g: m(h, g),
        "RNNCell": lambda m, h, g: m(h, g),
    }
    two["Bilinear"] = lambda m, h, g: m(h, g)
    two["Conv1d"] = lambda m, h, g: m(h.unsqueeze(2))
    two["LSTM"] = two["GRU"] = lambda m, h, g: m(torch.stack([h, g]))[0]
    two["MultiheadAttention"] = lambda m, h, g: m(h, g, g)[0]
    for name, _ in layers():
        use = two.get(name, lambda m, h, g: m(h + 0))
        yield f"nn.{name}", lambda s, h, g, x, name=name, use=use: use(s.layers[name], h, g)


# Methods and functions by themselves ------------------------------------------------------------------------------

_NOT_PURE = _names(
    "apply_ backward share_memory_ register_hook register_post_accumulate_grad_hook requires_grad_ retain_grad "
    "cuda ipu xpu mtia to_mkldnn pin_memory is_shared as_subclass storage untyped_storage storage_type "
    "storage_offset data_ptr dlpack numpy tolist item resize resize_as reinforce to_sparse to_sparse_coo "
    "to_sparse_csr to_sparse_csc to_sparse_bsr to_sparse_bsc sparse_dim dense_dim coalesce values indices "
    "col_indices row_indices crow_indices ccol_indices q_scale q_zero_point q_per_channel_scales "
    "q_per_channel_zero_points q_per_channel_axis int_repr dequantize rename refine_names align_to align_as map_ "
    "map2_ module_load to_padded_tensor new_empty new_empty_strided bernoulli multinomial uniform normal random "
    "geometric cauchy log_normal exponential dim_order names has_names empty_like record_stream is_pinned stft "
    "istft sspaddmm smm hspmm new unflatten sparse_mask sparse_resize"
)
"""Methods that are no functions of the numbers, that draw, or that concern other layouts and devices."""


def _candidates(h: Any, g: Any) -> Iterator[tuple[Any, ...]]:
    """Arguments to try, after the tensor."""
    m = h.detach() > 0 if isinstance(h, torch.Tensor) else h > 0
    square = torch.ones(8, 8)
    yield ()
    yield (g,)
    yield (1,)
    yield (0, 1)
    yield (2,)
    yield (1, torch.tensor([[2]]))
    yield (1, torch.tensor([0, 2]))
    yield (1, 0, 2)
    yield (g, g)
    yield (square,)
    yield (torch.ones(8),)
    yield (torch.tensor([[True] * 4 + [False] * 4]), -1.0)
    yield (torch.tensor([[True] * 4 + [False] * 4]),)
    yield (torch.tensor([[True] * 4 + [False] * 4]), g)
    yield (1, torch.tensor([[2]]), 1.0)
    yield (1, torch.tensor([[0, 2]]), g[:, :2])
    yield (1, torch.tensor([0, 2]), g[:, :2])
    yield (1, torch.tensor([0, 2]), 1.0)
    yield ((8,),)
    yield (-1, 8)
    yield (torch.float32,)
    yield (0.5,)
    yield (2, 1)
    yield (2, 1, 1)
    yield (2, 0, 1.0)
    yield (1, 2, 4)
    yield (torch.tensor([2]),)
    yield (torch.ones(8, 8), torch.ones(8, 8))
    del m


def _fits(call: Callable[..., Any], arguments: tuple[Any, ...]) -> bool:
    try:
        found = call(*arguments)
    except Exception:
        return False
    leaves = pytree.tree_leaves(found)
    return bool(leaves) and all(isinstance(leaf, torch.Tensor | bool | int | float | torch.Size) for leaf in leaves)


def _of_tensor() -> Iterator[tuple[str, Construct]]:
    h, g = torch.randn(1, WIDTH) * 0.3, torch.randn(1, WIDTH) * 0.3
    for name in dir(torch.Tensor):
        if name.startswith("_") or name.endswith("_") or name in _NOT_PURE or not callable(getattr(torch.Tensor, name)):
            continue
        for number, arguments in enumerate(_candidates(h, g)):
            if _fits(getattr(h.clone(), name), arguments):
                yield (
                    f"Tensor.{name}",
                    lambda s, h, g, x, name=name, number=number: getattr(h, name)(*list(_candidates(h, g))[number]),
                )
                break


_F_ARGUMENTS: dict[str, Construct] = {
    "linear": lambda s, h, g, x: F.linear(h, s.l.weight, s.l.bias),
    "bilinear": lambda s, h, g, x: F.bilinear(h, g, s.layers["Bilinear"].weight),
    "embedding": lambda s, h, g, x: F.embedding(torch.tensor([1]), s.emb.weight) + h,
    "cross_entropy": lambda s, h, g, x: F.cross_entropy(h, torch.tensor([2])),
    "nll_loss": lambda s, h, g, x: F.nll_loss(F.log_softmax(h, 1), torch.tensor([2])),
    "kl_div": lambda s, h, g, x: F.kl_div(F.log_softmax(h, 1), F.softmax(g, 1), reduction="sum"),
    "binary_cross_entropy": lambda s, h, g, x: F.binary_cross_entropy(h.sigmoid(), torch.ones(1, 8)),
    "batch_norm": lambda s, h, g, x: F.batch_norm(h, torch.zeros(8), torch.ones(8)),
    "layer_norm": lambda s, h, g, x: F.layer_norm(h, (8,)),
    "group_norm": lambda s, h, g, x: F.group_norm(h, 2),
    "rms_norm": lambda s, h, g, x: F.rms_norm(h, (8,)),
    "local_response_norm": lambda s, h, g, x: F.local_response_norm(h.view(1, 4, 2), 2),
    "instance_norm": lambda s, h, g, x: F.instance_norm(h.view(1, 2, 4)),
    "prelu": lambda s, h, g, x: F.prelu(h, torch.tensor([0.1])),
    "pad": lambda s, h, g, x: F.pad(h, (1, 2)),
    "conv1d": lambda s, h, g, x: F.conv1d(h.view(1, 2, 4), torch.ones(3, 2, 2)),
    "conv2d": lambda s, h, g, x: F.conv2d(h.view(1, 2, 2, 2), torch.ones(3, 2, 1, 1)),
    "max_pool1d": lambda s, h, g, x: F.max_pool1d(h.view(1, 2, 4), 2),
    "avg_pool1d": lambda s, h, g, x: F.avg_pool1d(h.view(1, 2, 4), 2),
    "adaptive_avg_pool1d": lambda s, h, g, x: F.adaptive_avg_pool1d(h.view(1, 2, 4), 2),
    "adaptive_max_pool1d": lambda s, h, g, x: F.adaptive_max_pool1d(h.view(1, 2, 4), 2),
    "max_pool2d": lambda s, h, g, x: F.max_pool2d(h.view(1, 2, 2, 2), 2),
    "avg_pool2d": lambda s, h, g, x: F.avg_pool2d(h.view(1, 2, 2, 2), 2),
    "lp_pool1d": lambda s, h, g, x: F.lp_pool1d(h.view(1, 2, 4).abs() + 1, 2, 2),
    "interpolate": lambda s, h, g, x: F.interpolate(h.view(1, 2, 4), scale_factor=2),
    "unfold": lambda s, h, g, x: F.unfold(h.view(1, 2, 2, 2), (1, 1)),
    "pixel_shuffle": lambda s, h, g, x: F.pixel_shuffle(h.view(1, 4, 1, 2), 2),
    "pixel_unshuffle": lambda s, h, g, x: F.pixel_unshuffle(h.view(1, 1, 2, 4), 2),
    "channel_shuffle": lambda s, h, g, x: F.channel_shuffle(h.view(1, 4, 2), 2),
    "one_hot": lambda s, h, g, x: F.one_hot(h.argmax(1), 8).float() * g,
    "dropout": lambda s, h, g, x: F.dropout(h, 0.5, training=s.training),
    "alpha_dropout": lambda s, h, g, x: F.alpha_dropout(h, 0.5, training=False),
    "feature_alpha_dropout": lambda s, h, g, x: F.feature_alpha_dropout(h, 0.5, training=False),
    "softmax": lambda s, h, g, x: F.softmax(h, 1),
    "softmin": lambda s, h, g, x: F.softmin(h, 1),
    "log_softmax": lambda s, h, g, x: F.log_softmax(h, 1),
    "glu": lambda s, h, g, x: F.glu(h, 1),
    "threshold": lambda s, h, g, x: F.threshold(h, 0.1, 0.0),
    "cosine_embedding_loss": lambda s, h, g, x: F.cosine_embedding_loss(h, g, torch.ones(1)),
    "margin_ranking_loss": lambda s, h, g, x: F.margin_ranking_loss(h, g, torch.ones(1, 8)),
    "hinge_embedding_loss": lambda s, h, g, x: F.hinge_embedding_loss(h, torch.ones(1, 8)),
    "triplet_margin_loss": lambda s, h, g, x: F.triplet_margin_loss(h, g, h * 2),
    "triplet_margin_with_distance_loss": lambda s, h, g, x: F.triplet_margin_with_distance_loss(h, g, h * 2),
    "gaussian_nll_loss": lambda s, h, g, x: F.gaussian_nll_loss(h, g, torch.ones(1, 8)),
    "multi_margin_loss": lambda s, h, g, x: F.multi_margin_loss(h, torch.tensor([2])),
    "multilabel_soft_margin_loss": lambda s, h, g, x: F.multilabel_soft_margin_loss(h, torch.ones(1, 8)),
    "scaled_dot_product_attention": lambda s, h, g, x: F.scaled_dot_product_attention(h[None], g[None], g[None]),
    "cosine_similarity": lambda s, h, g, x: F.cosine_similarity(h, g),
    "pairwise_distance": lambda s, h, g, x: F.pairwise_distance(h, g),
    "pdist": lambda s, h, g, x: F.pdist(torch.cat([h, g])),
    "normalize": lambda s, h, g, x: F.normalize(h, dim=1),
    "logsigmoid": lambda s, h, g, x: F.logsigmoid(h),
}
_F_SKIPPED = _names(
    "gumbel_softmax rrelu feature_dropout has_torch_function handle_torch_function boolean_dispatch "
    "has_torch_function_unary has_torch_function_variadic "
    "assert_int_or_pair fractional_max_pool2d fractional_max_pool3d dropout1d dropout2d dropout3d"
)


def _of_functional() -> Iterator[tuple[str, Construct]]:
    h, g = torch.randn(1, WIDTH) * 0.3, torch.randn(1, WIDTH) * 0.3
    for name in sorted(dir(F)):
        function = getattr(F, name)
        if (
            name.startswith("_")
            or name.endswith("_")
            or name in _F_SKIPPED
            or not callable(function)
            or name in ("Callable", "Optional", "TYPE_CHECKING", "Tensor", "Union")
        ):
            continue
        if name in _F_ARGUMENTS:
            yield f"F.{name}", _F_ARGUMENTS[name]
            continue
        for number, arguments in enumerate(_candidates(h, g)):
            if _fits(function, (h.clone(), *arguments)):
                yield (
                    f"F.{name}",
                    lambda s, h, g, x, function=function, number=number: function(h, *list(_candidates(h, g))[number]),
                )
                break


_IDIOMS: dict[str, Construct] = {
    "h[0, 3]": lambda s, h, g, x: h[0, 3],
    "h[:, 2:5]": lambda s, h, g, x: h[:, 2:5],
    "h[..., None]": lambda s, h, g, x: h[..., None],
    "h[:, [1, 3]]": lambda s, h, g, x: h[:, [1, 3]],
    "h[mask]": lambda s, h, g, x: h[torch.tensor([[True] * 4 + [False] * 4])],
    "h[0][tensor]": lambda s, h, g, x: h[0][torch.tensor([2, 3])],
    "zeros[0] = h": lambda s, h, g, x: (lambda z: (z.__setitem__(0, h[0]), z)[1])(torch.zeros(2, 8)),
    "clone[0, 0] = 1": lambda s, h, g, x: (lambda z: (z.__setitem__((0, 0), 1.0), z)[1])(h.clone()),
    "torch.where": lambda s, h, g, x: torch.where(h > 0, h, g),
    "torch.max(h, g)": lambda s, h, g, x: torch.max(h, g),
    "torch.max(h, 1)": lambda s, h, g, x: torch.max(h, 1)[0],
    "einsum": lambda s, h, g, x: torch.einsum("ij,ij->i", h, g),
    "einsum outer": lambda s, h, g, x: torch.einsum("bi,bj->bij", h, g),
    "(h > 0).float()": lambda s, h, g, x: (h > 0).float() * g,
    "loss += x": lambda s, h, g, x: functools.reduce(
        lambda total, one: total.add_(one), [h.sum(), g.sum()], torch.zeros(1)
    ),
    "sum(list)": lambda s, h, g, x: sum([h, g]),
    "index_copy": lambda s, h, g, x: torch.zeros(3, 8).index_copy(0, torch.tensor([1]), h),
    "index_add": lambda s, h, g, x: torch.zeros(3, 8).index_add(0, torch.tensor([1]), h),
    "scatter_": lambda s, h, g, x: torch.zeros(1, 8).scatter_(1, torch.tensor([[0, 1]]), h[:, :2]),
    "copy_": lambda s, h, g, x: torch.zeros(1, 8).copy_(h),
    "out=": lambda s, h, g, x: torch.add(h, g, out=torch.zeros(1, 8)),
    "pad_sequence": lambda s, h, g, x: nn.utils.rnn.pad_sequence([h[0], g[0]]),
    "Variable": lambda s, h, g, x: torch.autograd.Variable(h) * 2,
    "h.new": lambda s, h, g, x: h.new(1, 8).fill_(0) + g,
    "zeros_like": lambda s, h, g, x: torch.zeros_like(h) + g,
    "empty_like": lambda s, h, g, x: torch.empty_like(h).fill_(1) + g,
    "torch.cat": lambda s, h, g, x: torch.cat([h, g], 1),
    "torch.cat rows": lambda s, h, g, x: torch.cat([h, g, h]).sum(0),
    "tanh of rows": lambda s, h, g, x: torch.tanh(torch.cat([h, g, h])),
    "rows[None]": lambda s, h, g, x: torch.cat([h, g])[None],
    "rows[indices]": lambda s, h, g, x: torch.cat([h, g])[torch.tensor([1, 0, 1])],
    "attention": lambda s, h, g, x: torch.softmax(torch.cat([h, g]) @ h.t(), 0).t() @ torch.cat([h, g]),
    "hstack": lambda s, h, g, x: torch.hstack((h, g)),
    "vstack": lambda s, h, g, x: torch.vstack((h, g)),
    "par * h": lambda s, h, g, x: s.par * h,
    "h.T": lambda s, h, g, x: h.T,
    "h.mT": lambda s, h, g, x: h.mT,
    "h += g": lambda s, h, g, x: h.__iadd__(g),
    "h.mul_": lambda s, h, g, x: h.mul_(2),
    "h.relu_": lambda s, h, g, x: h.relu_(),
    "h.clamp_": lambda s, h, g, x: h.clamp_(0, 1),
    "masked_fill_": lambda s, h, g, x: h.masked_fill_(torch.tensor([[True] * 4 + [False] * 4]), -1.0),
    "unsqueeze_": lambda s, h, g, x: h.unsqueeze_(0),
    "vmap": lambda s, h, g, x: torch.vmap(lambda a: a * 2)(h),
    "new_tensor": lambda s, h, g, x: x.new_tensor(h),
    "torch.tensor": lambda s, h, g, x: torch.tensor([h[0, 0].item(), 1.0]),
    "Categorical": lambda s, h, g, x: torch.distributions.Categorical(logits=h).entropy(),
    "if h.sum() > 0": lambda s, h, g, x: h if h.sum() > 0 else g,
    "emb(argmax)": lambda s, h, g, x: s.emb(h.argmax(1)),
    "tolist": lambda s, h, g, x: h * len(h.tolist()),
    "checkpoint": lambda s, h, g, x: torch.utils.checkpoint.checkpoint(lambda a: a * 2, h, use_reentrant=False),
}


def constructs() -> list[tuple[str, Construct]]:
    """All constructs by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [*_of_tensor(), *_of_functional(), *_oflayers(), *_IDIOMS.items()]
