"""Exported programs in core operators: kernels of PyTorch are put back, and parts are read where they were written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from edbatch_tvm.recording.specialise import _run_program  # noqa: E402
from relay_ext import core_program, from_torch  # noqa: E402
from relay_ext.from_torch import export_program, rows_dimension  # noqa: E402

Function = Callable[[Any], Any]


class Code(nn.Module):
    """A function as a module."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(x)


def exported(function: Function, *shape: int, rows: int | None = None) -> tuple[Any, Any]:
    """The program of a function, and an argument."""
    x = torch.randn(shape)
    shapes = None if rows is None else ({rows: rows_dimension()},)
    return export_program("code", Code(function), (x.clone(),), shapes), x


def gates(x: Any) -> Any:
    """Gates written in place."""
    i, f, g = (x * 2).chunk(3, dim=-1)
    i.sigmoid_()
    f.sigmoid_()
    return i * g.tanh_() + f


def sliced(x: Any) -> Any:
    """The same by slices."""
    y = x + 1
    y[..., :2].sigmoid_()
    y[..., 2:4].tanh_()
    return y[..., :2] * y[..., 4:] + y[..., 2:4]


def twice(x: Any) -> Any:
    """A part is written twice, another stays."""
    y = x + 1
    y[..., :2] = x[..., 2:4]
    y[..., :2].mul_(3)
    return y[..., :2], y[..., 4:]


def overlapping(x: Any) -> Any:
    """Parts that are not those that were written."""
    y = x + 1
    y[..., 1:3] = 7
    y[..., 2:5].neg_()
    a, b, c = y.chunk(3, dim=-1)
    return a - b, c


def other_dimension(x: Any) -> Any:
    """Writes along another dimension, and reads of everything."""
    y = x.reshape(2, -1) + 1
    y[:1].tanh_()
    return y, y[..., :1]


@pytest.mark.parametrize("shape", [(6,), (1, 6), (2, 6), (1, 3, 6)])
@pytest.mark.parametrize("function", [gates, sliced, twice, overlapping, other_dimension])
@pytest.mark.parametrize("way", ["traced", "exported"])
def test_parts_written_in_place(
    function: Function, shape: tuple[int, ...], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "exported":
        monkeypatch.setattr(from_torch, "traced_program", lambda *_: None)
    for rows in (
        (None, len(shape) - 2) if len(shape) > 1 and shape[-2] > 1 and function is not other_dimension else (None,)
    ):
        program, x = exported(function, *shape, rows=rows)
        wanted, found = function(x.clone()), _run_program(program, [x.clone()])
        for one, other in zip(found, wanted if isinstance(wanted, tuple) else (wanted,), strict=True):
            torch.testing.assert_close(one, other)
        if function in (gates, sliced, twice):
            assert "slice_scatter" not in str(program.graph)


def composite(x: Any) -> Any:
    """Composite operators of several kinds."""
    y = torch.nn.functional.layer_norm(torch.nn.functional.linear(x, torch.ones(6, 6)), (6,))
    y = torch.nn.functional.silu(y).matmul(torch.ones(6, 2)).softmax(-1)
    return torch.einsum("ni,nj->ij", y, y), torch.nn.functional.pad(y, (1, 0)), y.var(0)


def test_kernels_are_put_back() -> None:
    exported(composite, 3, 6)
    (kept,) = core_program._KEPT
    first = str(exported(composite, 3, 6)[0].graph)
    assert [kept] == core_program._KEPT
    assert all(operator.py_kernels == before for operator, before in kept.before.items())
    core_program._KEPT.clear()
    assert str(exported(composite, 3, 6)[0].graph) == first


def test_kernels_that_others_register_stay() -> None:
    exported(composite, 3, 6)
    kept = core_program._KEPT[0]
    operator = next(iter(kept.of))
    key = torch._C.DispatchKey.PrivateUse1
    operator.py_kernels[key] = kernel = object()
    try:
        exported(composite, 3, 6)
        assert operator.py_kernels.get(key) is kernel
        assert core_program._KEPT[0] is not kept
    finally:
        operator.py_kernels.pop(key)
    exported(composite, 3, 6)
    assert key not in operator.py_kernels
