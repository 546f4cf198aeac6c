"""PyTorch operators as its CPU kernels compute them, where its own decompositions treat infinities differently."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from relay_ext.torch_interpolation import grid_sample, upsample_bicubic, upsample_linear


def own_decompositions() -> dict[Any, Any]:
    """Decompositions by operator, for ``ExportedProgram.run_decompositions``."""
    import torch

    aten = torch.ops.aten
    return {
        aten._softmax_backward_data.default: _softmax_backward,
        aten._safe_softmax.default: _safe_softmax,
        aten.native_group_norm.default: _group_norm,
        aten.native_batch_norm.default: _batch_norm,
        aten._native_batch_norm_legit.default: _batch_norm,
        aten._native_batch_norm_legit.no_stats: _batch_norm_without_running,
        aten._native_batch_norm_legit_no_training.default: _batch_norm_by_running,
        aten._native_batch_norm_legit_functional.default: _batch_norm_with_running,
        aten._cdist_forward.default: _distances,
        aten.one_hot.default: _one_hot,
        aten.linalg_vector_norm.default: _vector_norm,
        aten.std.default: _deviation,
        aten.std.dim: _deviation_of_dims,
        aten.std.correction: _corrected_deviation,
        aten.std_mean.correction: _deviation_and_mean,
        aten.var.default: _variance,
        aten.var.dim: _variance_of_dims,
        aten._trilinear.default: _trilinear,
        aten.multilabel_margin_loss_forward.default: _multilabel_margin_loss,
        aten.grid_sampler_2d.default: grid_sample,
        aten.upsample_bicubic2d.vec: upsample_bicubic,
        aten.upsample_bicubic2d.default: _upsample_bicubic_by_scales,
    }


@contextmanager
def own_functions(torch: Any) -> Iterator[None]:
    """Let functions that PyTorch takes apart while it exports be the ones below."""
    functions = {
        "upsample_linear1d": upsample_linear,
        "upsample_bilinear2d": upsample_linear,
        "upsample_trilinear3d": upsample_linear,
        "multi_margin_loss": _multi_margin_loss,
    }
    plain = {name: getattr(torch._C._nn, name) for name in functions}
    for name, function in functions.items():
        setattr(torch._C._nn, name, function)
    try:
        yield
    finally:
        for name, function in plain.items():
            setattr(torch._C._nn, name, function)


def _root(total: Any, root: Callable[[Any], Any]) -> Any:
    """A root whose gradient at 0 passes nothing on, as PyTorch's of norms and deviations; that of the root is NaN."""
    import torch

    zero = total == 0
    return torch.where(zero, total, root(torch.where(zero, 1.0, total)))


def _vector_norm(x: Any, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    import torch

    extents = list(x.shape) if not dim else [x.shape[one] for one in ([dim] if isinstance(dim, int) else dim)]
    if ord <= 1 or math.isinf(ord) or all(extent == 1 for extent in extents) or not x.is_floating_point():
        return torch._refs.linalg.vector_norm(x, ord, dim, keepdim, dtype=dtype)
    x = x if dtype is None else x.to(dtype)
    powers = torch.pow(x if ord % 2 == 0 else torch.abs(x), ord)
    total = torch.sum(powers, dim=dim or None, keepdim=keepdim)
    return _root(total, lambda total: torch.pow(total, 1.0 / ord))


def _deviation(x: Any, unbiased: bool = True) -> Any:
    return _corrected_deviation(x, correction=int(unbiased))


def _deviation_of_dims(x: Any, dim: Any, unbiased: bool = True, keepdim: bool = False) -> Any:
    return _corrected_deviation(x, dim, correction=int(unbiased), keepdim=keepdim)


def _corrected_deviation(x: Any, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    import torch

    return _root(torch.var(x, dim, correction=1 if correction is None else correction, keepdim=keepdim), torch.sqrt)


def _deviation_and_mean(x: Any, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> tuple[Any, Any]:
    import torch

    correction = 1 if correction is None else correction
    variance, mean = torch.var_mean(x, dim, correction=correction, keepdim=keepdim)
    return _root(variance, torch.sqrt), mean


def _variance(x: Any, unbiased: bool = True) -> Any:
    return _variance_of_dims(x, None, unbiased)


def _variance_of_dims(x: Any, dim: Any, unbiased: bool = True, keepdim: bool = False) -> Any:
    """As the operator that is told the degrees of freedom, which the importer knows."""
    import torch

    return torch.ops.aten.var.correction(x, dim, correction=int(unbiased), keepdim=keepdim)


def _one_hot(index: Any, num_classes: int = -1) -> Any:
    """The index is read from a table of all classes: so one beyond the last is refused, where it is an attribute.

    PyTorch's own form asserts that, which a cell cannot. The numbers are floats, which a stage compares.
    """
    import torch

    if num_classes < 0:
        raise ValueError("one_hot without num_classes in a cell: its result has no fixed shape")
    classes = torch.arange(num_classes, dtype=torch.float32)
    found = torch.nn.functional.embedding(index, classes.unsqueeze(-1))
    return torch.eq(found, classes).to(torch.int64)


def _multi_margin_loss(
    x: Any, target: Any, p: float = 1, margin: float = 1, weight: Any = None, reduction: int = 1
) -> Any:
    """NaN is no violation of the margin: it counts as 0."""
    import torch

    x, target = torch.atleast_2d(x), torch.atleast_1d(target).unsqueeze(1)
    z = margin - torch.gather(x, 1, target) + x
    violated = z > 0
    z = z if p == 1 else z * z
    if weight is not None:
        z = z * weight[target]
    others = torch.arange(x.shape[1]) != target
    z = torch.where(others & violated, z, 0)
    if reduction == 1:
        return z.mean()
    return z.sum() / z.shape[1] if reduction == 2 else z.mean(dim=1)


def _multilabel_margin_loss(x: Any, target: Any, reduction: int) -> tuple[Any, Any]:
    """The classes of a row end at its first -1; PyTorch's decomposition counts class 0 for each place behind it."""
    import torch

    single = target.ndim < 2
    shape, x, target = target.shape, torch.atleast_2d(x), torch.atleast_2d(target)
    count = x.shape[1]
    places = torch.arange(count)
    listed = places < torch.where(target < 0, places, count).amin(1, keepdim=True)
    own = torch.where(listed, target, 0)
    is_target = ((own.unsqueeze(2) == places) & listed.unsqueeze(2)).any(1)
    z = 1 - torch.gather(x, 1, own).unsqueeze(2) + x.unsqueeze(1)
    z = torch.where((z > 0) & listed.unsqueeze(2) & ~is_target.unsqueeze(1), z, 0)
    loss = z.sum((1, 2)) / count
    if reduction:
        loss = loss.mean() if reduction == 1 else loss.sum()
    elif single:
        loss = loss.reshape(())
    return loss, is_target.to(x.dtype).reshape(shape)


def _upsample_bicubic_by_scales(
    x: Any, output_size: Any, align_corners: bool, rows: float | None = None, columns: float | None = None
) -> Any:
    return upsample_bicubic(x, output_size, align_corners, scales=(rows, columns))


def _safe_softmax(x: Any, dim: int, dtype: Any = None) -> Any:
    """0 where all elements are -inf, which their maximum tells; PyTorch's decomposition counts truth values."""
    import torch

    x = x if dtype is None else x.to(dtype)
    return torch.where(torch.amax(x, dim, keepdim=True) == -torch.inf, 0.0, torch.softmax(x, dim))


def _softmax_backward(gradient: Any, result: Any, dim: int, dtype: Any) -> Any:
    return ((gradient - (gradient * result).sum(dim, keepdim=True)) * result).to(dtype)


def _group_norm(
    x: Any, weight: Any, bias: Any, batch: int, channels: int, size: int, groups: int, epsilon: float
) -> tuple[Any, Any, Any]:
    """Where the variance is NaN, since there is an infinity, the mean is NaN as well."""
    import torch

    del size
    rows = x.reshape(batch, groups, -1)
    variance, mean = torch.var_mean(rows, dim=[2], correction=0, keepdim=True)
    root = torch.rsqrt(variance + epsilon)
    shape = [1, groups, channels // groups, 1]
    scale = root.reshape(batch, groups, 1, 1)
    if weight is not None:
        scale = scale * weight.reshape(shape)
    shift = -mean.reshape(batch, groups, 1, 1) * scale
    if bias is not None:
        shift = shift + bias.reshape(shape)
    normal = (x.reshape(batch, groups, channels // groups, -1) * scale + shift).reshape(x.shape)
    return normal, (mean + variance * 0).reshape(batch, groups), root.reshape(batch, groups)


def _batch_norm(
    x: Any, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, momentum: float, epsilon: float
) -> tuple[Any, Any, Any]:
    """The norm by statistics of the batch, or by the running ones without `training`."""
    if not training:
        return _batch_norm_by_running(x, weight, bias, mean, variance, momentum, epsilon)
    normal, mean_of_batch, root, after = _norm_by_batch(x, weight, bias, mean, variance, momentum, epsilon)
    for running, new in zip((mean, variance), after, strict=True):
        if running is not None:
            running.copy_(new)
    return normal, mean_of_batch, root


def _batch_norm_by_running(
    x: Any, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, epsilon: float
) -> tuple[Any, Any, Any]:
    import torch

    del momentum
    normal = _scaled_and_shifted(x, weight, bias, mean, torch.rsqrt(variance + epsilon))
    return normal, x.new_zeros((0,)), x.new_zeros((0,))


def _batch_norm_without_running(
    x: Any, weight: Any, bias: Any, training: bool, momentum: float, epsilon: float
) -> tuple[Any, Any, Any]:
    return _batch_norm(x, weight, bias, None, None, training, momentum, epsilon)


def _batch_norm_with_running(
    x: Any, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, momentum: float, epsilon: float
) -> tuple[Any, ...]:
    """The running statistics after it are results four and five."""
    if not training:
        found = _batch_norm_by_running(x, weight, bias, mean, variance, momentum, epsilon)
        return (*found, mean.clone(), variance.clone())
    *results, after = _norm_by_batch(x, weight, bias, mean, variance, momentum, epsilon)
    return (*results, *after)


def _norm_by_batch(
    x: Any, weight: Any, bias: Any, mean: Any, variance: Any, momentum: float, epsilon: float
) -> tuple[Any, Any, Any, tuple[Any, Any]]:
    """The norm, mean and root of the batch, and the running statistics after it.

    The mean of the batch is a plain one, infinite after an infinity, unlike that of ``var_mean``.
    """
    import torch

    dims = [0, *range(2, x.ndim)]
    count = x.numel() // x.shape[1]
    of_batch = x.mean(dims)
    centred = x - of_batch.reshape(_by_channel(x))
    squares = (centred * centred).sum(dims)
    root = torch.rsqrt(squares / count + epsilon)
    unbiased = squares / (count - 1) if count > 1 else squares * float("nan")
    after = [
        None if running is None else momentum * new + (1 - momentum) * running
        for running, new in ((mean, of_batch), (variance, unbiased))
    ]
    return _scaled_and_shifted(x, weight, bias, of_batch, root), of_batch, root, (after[0], after[1])


def _scaled_and_shifted(x: Any, weight: Any, bias: Any, mean: Any, root: Any) -> Any:
    """``x * alpha + beta``, one alpha and beta for each channel."""
    alpha = root if weight is None else root * weight.flatten()
    beta = -mean * alpha if bias is None else bias.flatten() - mean * alpha
    return x * alpha.reshape(_by_channel(x)) + beta.reshape(_by_channel(x))


def _by_channel(x: Any) -> list[int]:
    return [1, -1, *[1] * (x.ndim - 2)]


def _trilinear(
    one: Any,
    two: Any,
    three: Any,
    expand_one: Sequence[int],
    expand_two: Sequence[int],
    expand_three: Sequence[int],
    summed: Sequence[int],
    _unrolled: int = 1,
) -> Any:
    """Products of three tensors, expanded along dimensions and summed; ``bilinear`` as a product of matrices."""
    if [*map(list, (expand_one, expand_two, expand_three, summed))] == [[1, 3], [0], [1, 2], [2, 3]]:
        left = one @ two.permute(1, 0, 2).reshape(one.shape[1], -1)
        return (left.reshape(-1, two.shape[0], two.shape[2]) * three.unsqueeze(1)).sum(2)
    for dim in sorted(expand_one):
        one = one.unsqueeze(dim)
    for dim in sorted(expand_two):
        two = two.unsqueeze(dim)
    for dim in sorted(expand_three):
        three = three.unsqueeze(dim)
    product = one * two * three
    return product.sum(list(summed)) if summed else product


def _distances(x: Any, y: Any, p: float, mode: int | None) -> Any:
    """``cdist``; without the product of matrices that PyTorch uses for many rows."""
    import torch

    del mode
    apart = (x.unsqueeze(-2) - y.unsqueeze(-3)).abs()
    if p == 0:
        return apart.ceil().clamp(max=1).sum(-1)  # NaN stays
    if p == 1:
        return apart.sum(-1)
    if p == 2:
        return _root((apart * apart).sum(-1), torch.sqrt)
    if p == float("inf"):
        return torch.where(apart.isnan(), 0, apart).amax(-1)  # PyTorch skips NaN here alone
    return (apart**p).sum(-1) ** (1 / p)
