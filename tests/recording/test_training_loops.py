"""Training loops with ``autobatch``: many steps, several processes."""

from __future__ import annotations

import copy
import gc
import os
import resource
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import multiprocessing
from torch.nn import functional as F

import edbatch_tvm as eb
from tests.recording.models import ChildSumTreeLSTM, ModularTreeLSTM, ShiftReduceParser, random_trees
from tests.recording.test_gradients import CELLS, MINIBATCH, Net

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::edbatch_tvm.errors.CellWarning")]

VOCABULARY = 40


@pytest.fixture(autouse=True)
def gradients_are_recorded() -> Iterator[None]:
    with torch.enable_grad():
        yield


def test_two_hundred_steps_follow_those_of_pytorch() -> None:
    torch.manual_seed(0)
    model = ChildSumTreeLSTM(32, VOCABULARY)
    plain = copy.deepcopy(model)
    fast = eb.autobatch(model, ["node_forward"])
    optimizers = [torch.optim.Adam(one.parameters(), 1e-3) for one in (model, plain)]
    trees = random_trees(32, VOCABULARY)
    for number in range(200):
        some = [trees[(number * 8 + place) % 32] for place in range(8)]
        losses = [_loss(outputs) for outputs in (fast(some), [plain(tree) for tree in some])]
        assert abs(losses[0] - losses[1]) <= 1e-3 * abs(losses[1])
        for loss, optimizer in zip(losses, optimizers, strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


MODELS: dict[str, tuple[Any, list[str], Any]] = {
    "child-sum": (lambda: ChildSumTreeLSTM(24, VOCABULARY), ["node_forward"], lambda: random_trees(16, VOCABULARY)),
    "modular": (
        lambda: ModularTreeLSTM(16, VOCABULARY),
        ["word", "cell", "classify"],
        lambda: random_trees(8, VOCABULARY, 1),
    ),
    "parser": (
        lambda: ShiftReduceParser(16, VOCABULARY),
        ["shift", "reduce", "score"],
        lambda: [torch.randint(1, VOCABULARY, (length,)).tolist() for length in range(3, 15)],
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_models_are_those_of_float64(name: str) -> None:
    """Recursion, and values that decide what runs."""
    torch.manual_seed(5)
    make, cells, elements = MODELS[name]
    model, minibatch = make(), elements()
    fast = eb.autobatch(model, cells)
    for turn in range(2):
        exact = copy.deepcopy(model).double()
        torch.set_default_dtype(torch.float64)
        try:
            _loss([exact(one) for one in minibatch]).backward()
        finally:
            torch.set_default_dtype(torch.float32)
        model.zero_grad()
        _loss(fast(minibatch)).backward()
        for (path, one), other in zip(model.named_parameters(), exact.parameters(), strict=True):
            assert (one.grad is None) == (other.grad is None), path
            if other.grad is not None:
                assert (one.grad - other.grad).abs().max() <= 1e-5 * other.grad.abs().max(), path
        assert bool(fast.reports[1:]) == (name == "parser") or not turn


def _loss(outputs: Any) -> torch.Tensor:
    leaves = [one for one in torch.utils._pytree.tree_leaves(outputs) if isinstance(one, torch.Tensor)]
    return torch.stack([F.mse_loss(one, torch.full_like(one, 0.3)) for one in leaves]).mean()


def test_memory_is_steady() -> None:
    """Over steps, and over calls whose results nobody differentiates."""
    torch.manual_seed(0)
    model = Net()
    fast = eb.autobatch(model, CELLS)
    elements = [("chain", words) for words in MINIBATCH] * 4
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    most = []
    for number in range(1200):
        loss = sum(one.square().sum() for one in fast(elements[number % 5 :]))
        if number % 2:
            optimizer.zero_grad()
            loss.backward()  # type: ignore[union-attr]
            optimizer.step()
        if number in (400, 1199):
            gc.collect()
            most.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    assert most[1] - most[0] < 8 << 10  # KiB


def _process(rank: int, queue: Any) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(29500 + os.getppid() % 1000))
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = Net().requires_grad_(False)
    for part in (model.embedding, model.two):
        part.requires_grad_(True)
    both = torch.nn.parallel.DistributedDataParallel(eb.autobatch(model, ["leaf", "step"]))
    for _ in range(3):
        both.zero_grad()
        elements = [("chain", words) for words in MINIBATCH[rank::2]]
        (sum(one.sum() for one in both(elements)) / len(elements)).backward()
    if rank == 0:
        queue.put({name: one.grad.numpy() for name, one in model.named_parameters() if one.grad is not None})
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradients_of_one() -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_process, args=(rank, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    found = queue.get(timeout=300)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    torch.manual_seed(0)
    model = Net()
    (sum(model("chain", words).sum() for words in MINIBATCH) / len(MINIBATCH)).backward()  # type: ignore[union-attr]
    wanted = dict(model.named_parameters())
    assert len(found) == 3
    for name, one in found.items():
        other = wanted[name].grad.numpy()
        assert abs(one - other).max() <= 1e-5 * abs(other).max()
