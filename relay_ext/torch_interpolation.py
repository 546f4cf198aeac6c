"""Interpolation as PyTorch's CPU kernels compute it, out of core operators."""

from __future__ import annotations

import itertools
from typing import Any

ZEROS, REFLECTION = 0, 2
NEAREST, BICUBIC = 1, 2


def upsample_linear(x: Any, output_size: Any, align_corners: bool, factors: Any = None) -> Any:
    """``x1 * (1 - w) + x2 * w`` along each dimension, the last one first; ``x1 + (x2 - x1) * w`` is NaN for inf."""
    import torch
    from torch._decomp.decompositions import upsample_compute_output_size

    sizes = upsample_compute_output_size(x.size(), output_size, factors)
    scales, count = factors or [None] * len(sizes), len(sizes)
    near, far, weights = [], [], []
    for axis, (before, after, scale) in enumerate(zip(x.shape[2:], sizes, scales, strict=True)):
        at = torch.arange(after).to(x.dtype)
        if align_corners:
            source = at * ((before - 1) / (after - 1) if after > 1 else 0.0)
        else:
            step = 1.0 / scale if scale is not None and scale > 0 else before / after
            source = ((at + 0.5) * step - 0.5).clamp(min=0.0)
        source = source.reshape(-1, *[1] * (count - 1 - axis))
        near.append(source.to(torch.int64).clamp(max=before - 1))
        far.append((near[-1] + 1).clamp(max=before - 1))
        weights.append((source - near[-1]).clamp(0.0, 1.0))
    values = [
        torch.ops.aten.index(x, [None, None, *[(near, far)[side][k] for k, side in enumerate(sides)]])
        for sides in itertools.product((0, 1), repeat=count)
    ]
    for weight in reversed(weights):
        values = [one * (1.0 - weight) + other * weight for one, other in zip(values[::2], values[1::2], strict=True)]
    return values[0]


def upsample_bicubic(
    x: Any, output_size: Any, align_corners: bool, factors: Any = None, scales: tuple[Any, Any] = (None, None)
) -> Any:
    """The sum of four elements with their weights, along the columns first.

    `factors` gives the size where `output_size` is None; `scales` are of the positions alone.
    """
    import torch
    from torch._decomp.decompositions import upsample_compute_output_size

    sizes = upsample_compute_output_size(x.size(), output_size, factors)
    for axis in (1, 0):
        before, after, scale = x.shape[2 + axis], sizes[axis], (factors or scales)[axis]
        at = torch.arange(after).to(x.dtype)
        if align_corners:
            source = at * ((before - 1) / (after - 1) if after > 1 else 0.0)
        else:
            source = (at + 0.5) * (1.0 / scale if scale is not None and scale > 0 else before / after) - 0.5
        first = source.floor()
        places = (first[:, None] + torch.arange(-1, 3)).to(torch.int64).clamp(0, before - 1)
        found = torch.index_select(x, 2 + axis, places.flatten()).unflatten(2 + axis, (after, 4))
        weights = _cubic(source - first)
        x = (found * (weights[..., None] if axis == 0 else weights)).sum(3 + axis)
    return x


def grid_sample(x: Any, grid: Any, mode: int, padding: int, align_corners: bool) -> Any:
    """``grid_sampler_2d``: `x` is [N, C, height, width], `grid` [N, H, W, 2]; the result is [N, C, H, W].

    What lies outside with `padding` of zeros counts as 0 but keeps its weight, so that an infinite coordinate gives
    NaN.
    """
    import torch

    height, width = x.shape[2:]
    column, row = _position(grid[..., 0], width, align_corners), _position(grid[..., 1], height, align_corners)

    def bounded(position: Any, size: int) -> Any:
        return _bounded(position, size, padding, align_corners)

    if mode != BICUBIC:
        column, row = bounded(column, width), bounded(row, height)
    if mode == NEAREST:
        return _value(x, row.round(), column.round())
    above, left = row.floor(), column.floor()
    weights, first = (_cubic, -1) if mode == BICUBIC else (_linear, 0)
    of_rows, of_columns = weights(row - above), weights(column - left)
    near = torch.arange(first, first + of_rows.shape[-1]).to(x.dtype)
    # [N, H, W, rows, columns]
    rows, columns = (above[..., None] + near)[..., None], (left[..., None] + near)[..., None, :]
    if mode == BICUBIC:
        rows, columns = bounded(rows, height), bounded(columns, width)
    found = _value(x, *torch.broadcast_tensors(rows, columns))
    return ((found * of_columns[:, None, :, :, None]).sum(-1) * of_rows.unsqueeze(1)).sum(-1)


def _position(coordinate: Any, size: int, align_corners: bool) -> Any:
    """A coordinate of -1 to 1 in elements."""
    return (coordinate + 1) * ((size - 1) / 2) if align_corners else (coordinate + 1) * (size / 2) - 0.5


def _bounded(position: Any, size: int, padding: int, align_corners: bool) -> Any:
    """Positions moved inside; NaN is 0."""
    import torch

    if padding == ZEROS:
        return position
    if padding == REFLECTION:
        least = 0.0 if align_corners else -0.5
        span = size - 1 if align_corners else size
        if span == 0:
            return torch.zeros_like(position)
        distance = (position - least).abs()
        distance = distance - (distance / (2 * span)).trunc() * (2 * span)
        position = torch.minimum(distance, 2 * span - distance) + least
    return torch.where(position > 0, position.clamp(max=float(size - 1)), 0.0)


def _value(x: Any, row: Any, column: Any) -> Any:
    """The elements at whole positions; 0 for those outside."""
    import torch

    batch, channels, height, width = x.shape
    inside = (row > -1) & (row < height) & (column > -1) & (column < width)
    place = torch.where(inside, row * width + column, 0.0).to(torch.int64).reshape(batch, 1, -1)
    found = torch.gather(x.reshape(batch, channels, -1), 2, place.expand(batch, channels, place.shape[2]))
    found = found.reshape(batch, channels, *row.shape[1:])
    return torch.where(inside.unsqueeze(1), found, 0.0)


def _cubic(t: Any) -> Any:
    """Weights of the elements at -1, 0, 1 and 2, along a last dimension, for a position of 0 to 1: Keys, a = -0.75."""
    import torch

    a = -0.75

    def near(d: Any) -> Any:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Any) -> Any:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return torch.stack([far(t + 1), near(t), near(1 - t), far(2 - t)], -1)


def _linear(t: Any) -> Any:
    import torch

    return torch.stack([1 - t, t], -1)
