"""What a model may do with recorded tensors between cells: recorded, broken, or wrong.

Run as ``python -m benchmarks.recording_coverage``: every pure method of ``torch.Tensor``, every function of
``torch.nn.functional``, layers of ``torch.nn`` and idioms, each on recorded values of a cell, compared with PyTorch.
*Recorded* is what needs no break: no operation of it was run by PyTorch, element by element, before it could go on.
*Wrong* is what differs from PyTorch by more than 1e-5 and by more than PyTorch's own float32 result, of inputs that are
rounded otherwise, differs from that in float64: near a pole, or in a difference of equal numbers, that is much.
"""

from __future__ import annotations

import argparse
import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

import edbatch_tvm as eb
from benchmarks.recording_constructs import WIDTH, Construct, constructs, layers

BROKEN: dict[str, str] = {}
"""By construct, what PyTorch ran; not in the model, whose elements would share it."""


@dataclass
class Outcome:
    """What became of a construct.

    Attributes
    ----------
    name : str
    outcome : str
        ``recorded``, ``broken``, ``error`` or ``wrong``.
    detail : str
    """

    name: str
    outcome: str
    detail: str = ""


class Between(nn.Module):
    """A cell, and constructs on two of its values."""

    def __init__(self, constructs: Sequence[tuple[str, Construct]]) -> None:
        super().__init__()
        self.l = nn.Linear(WIDTH, WIDTH)
        self.emb = nn.Embedding(10, WIDTH)
        self.par = nn.Parameter(torch.randn(WIDTH))
        self.layers = nn.ModuleDict(dict(layers()))
        self.constructs = constructs

    def forward(self, x: torch.Tensor) -> list[Any]:
        results = []
        for name, construct in self.constructs:
            h, g = self.l(x[0:1]), self.l(x[1:2])
            recorder = getattr(h, "recorder", None)
            before = (len(recorder.breaks), recorder.reads) if recorder is not None else None
            results.append(construct(self, h, g, x))
            if recorder is not None and (len(recorder.breaks), recorder.reads) != before:
                last = recorder.breaks[-1] if len(recorder.breaks) > before[0] else None
                BROKEN[name] = f"{last.operation}: {last.reason}" if last is not None else "reads a value"
        return results


def sweep(chosen: Sequence[tuple[str, Construct]], together: int = 24) -> list[Outcome]:
    """What becomes of each construct; `together` of them are tried in one model."""
    elements = [torch.randn(n, WIDTH) for n in (3, 5, 2, 4)]
    outcomes: list[Outcome] = []
    for begin in range(0, len(chosen), together):
        outcomes += _tried(chosen[begin : begin + together], elements)
    return outcomes


def _tried(chosen: Sequence[tuple[str, Construct]], elements: list[torch.Tensor]) -> list[Outcome]:
    model = Between(chosen).eval()
    with torch.no_grad():
        wanted = [model(x.clone()) for x in elements]
        fast = eb.autobatch(model, cells=["l"])
        try:
            found = [fast([x.clone() for x in elements]) for _ in range(2)]
        except Exception as error:
            if len(chosen) == 1:
                outcome = "error" if isinstance(error, eb.EdbatchError) else "wrong"
                return [Outcome(chosen[0][0], outcome, f"{type(error).__name__}: {error}")]
            half = len(chosen) // 2
            return [*_tried(chosen[:half], elements), *_tried(chosen[half:], elements)]
    outcomes = []
    for place, (name, _) in enumerate(chosen):
        pairs = [(one[place], other[place]) for run in found for one, other in zip(run, wanted, strict=True)]
        if not all(_alike(one, other) for one, other in pairs) and not _as_exact(model, place, elements, found):
            outcomes.append(Outcome(name, "wrong", repr(pairs[0])[:300]))
        elif name in BROKEN:
            outcomes.append(Outcome(name, "broken", BROKEN[name]))
        else:
            outcomes.append(Outcome(name, "recorded"))
    return outcomes


_ROUNDED = 8
"""Inputs, each rounded otherwise, that tell how exact PyTorch's own results are."""
_MORE = 4
"""How many times PyTorch's own largest error a result may be off."""


def _as_exact(model: Between, place: int, elements: list[torch.Tensor], found: list[list[Any]]) -> bool:
    """Whether the results of a construct are as near to those in float64 as PyTorch's own are, within a factor."""
    own = copy.copy(model)
    own.constructs = model.constructs[place : place + 1]
    exact = copy.deepcopy(own).double()
    numbers = torch.Generator().manual_seed(0)
    try:
        for number, x in enumerate(elements):
            wanted = exact(x.double())
            allowed = [torch.zeros_like(one) for one in _numbers(wanted)]
            for _ in range(_ROUNDED):
                last_bits = torch.randint(-1, 2, x.shape, generator=numbers) * torch.finfo(x.dtype).eps
                errors = _errors(own(x * (1 + last_bits)), wanted)
                allowed = [torch.maximum(one, other) for one, other in zip(allowed, errors, strict=True)]
            for run in found:
                errors = _errors([run[number][place]], wanted)
                if not all(bool((one <= _MORE * most).all()) for one, most in zip(errors, allowed, strict=True)):
                    return False
    except (RuntimeError, TypeError, ValueError):  # what has no float64, or other results there
        return False
    return True


def _errors(found: Any, wanted: Any) -> list[torch.Tensor]:
    return [(one - other).abs() for one, other in zip(_numbers(found), _numbers(wanted), strict=True)]


def _numbers(results: Any) -> list[torch.Tensor]:
    """The floating-point numbers of results, in float64.

    Raises
    ------
    TypeError
        If there is anything else: that is equal or wrong.
    """
    leaves = pytree.tree_leaves(results)
    if not all(isinstance(leaf, torch.Tensor) and leaf.is_floating_point() for leaf in leaves):
        raise TypeError
    return [leaf.double() for leaf in leaves]


def _alike(found: Any, wanted: Any) -> bool:
    ones, others = pytree.tree_leaves(found), pytree.tree_leaves(wanted)
    if len(ones) != len(others):
        return False
    for one, other in zip(ones, others, strict=True):
        if isinstance(other, torch.Tensor):
            if not isinstance(one, torch.Tensor) or one.shape != other.shape or one.dtype is not other.dtype:
                return False
            if not torch.allclose(one, other, atol=1e-5, rtol=1e-5, equal_nan=True):
                return False
        elif one != other:
            return False
    return True


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what is not recorded, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="constructs whose names contain this")
    parser.add_argument("--part", default="1/1", help="one part of several: 1/4 to 4/4")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    chosen = [(name, construct) for name, construct in constructs() if not options.only or options.only in name]
    part, parts = map(int, options.part.split("/"))
    outcomes = sweep(chosen[part - 1 :: parts])
    for one in outcomes:
        if one.outcome != "recorded":
            print(f"{one.outcome:9s} {one.name:40s} {one.detail[:150]}")
    counts = {kind: sum(one.outcome == kind for one in outcomes) for kind in ("recorded", "broken", "error", "wrong")}
    print(f"{len(outcomes)} constructs: " + ", ".join(f"{count} {kind}" for kind, count in counts.items()))


if __name__ == "__main__":
    main()
