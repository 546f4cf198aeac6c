"""The sweep over what models do between cells says what is wrong, and only that."""

from __future__ import annotations

import torch

from benchmarks.recording_coverage import Between, _as_exact, sweep

NEAR_A_POLE = torch.tensor([[-1.0001, 0.5, 2.0, -3.00002, 1.0, 0.1, 0.3, 4.0]])


def test_last_bits_that_matter_are_not_wrong() -> None:
    torch.manual_seed(0)
    model = Between([("near a pole", lambda model, h, g, x: torch.digamma(x[:1]))]).eval()
    elements = [torch.cat([NEAR_A_POLE] * count) for count in (3, 5)]
    with torch.no_grad():
        exact = [model(x) for x in elements]
        off = [[(NEAR_A_POLE * (1 + torch.finfo().eps)).digamma()] for _ in elements]
        assert (off[0][0] - exact[0][0]).abs().max() > 1e-3
        assert _as_exact(model, 0, elements, [off])
        assert not _as_exact(model, 0, elements, [[[one[0] * 1.001] for one in exact]])
        assert not _as_exact(model, 0, elements, [[[one[0] + 1e-4] for one in exact]])


def test_what_is_wrong_is_told() -> None:
    torch.manual_seed(0)
    constructs = [
        ("right", lambda model, h, g, x: torch.tanh(h)),
        ("wrong", lambda model, h, g, x: h * (1 + 1e-3 * hasattr(h, "recorder"))),
    ]
    assert [one.outcome for one in sweep(constructs)] == ["recorded", "wrong"]
