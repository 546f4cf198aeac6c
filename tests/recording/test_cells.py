"""Submodules and methods as cells: their arguments, shapes, lists, integers and weights."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from greenlet import GreenletExit
from torch import nn

import edbatch_tvm as eb
from edbatch_tvm.recording.driver import Driver
from tests.recording.checks import assert_equal

H = 4


def run_twice(model: nn.Module, cells: list[str], elements: list[Any]) -> eb.AutoBatched:
    """Compare with PyTorch, the first call and the next."""
    fast = eb.autobatch(model, cells)
    expected = [model(element) for element in elements]
    assert_equal(fast(elements), expected)
    assert_equal(fast(elements), expected)
    return fast


class Lists(nn.Module):
    """A node takes the list of its children's states, of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, H)
        self.up = nn.Linear(H, H)

    def leaf(self, word: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.words(torch.tensor(word)), self.words.weight[word]

    def join(self, children: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.stack([h for h, _ in children]).sum(0)
        best = torch.stack([c for _, c in children]).max(0).values
        return torch.tanh(self.up(h)), best

    def ordered(self, children: list[torch.Tensor]) -> torch.Tensor:
        return self.up(children[0]) - torch.stack(children).mean(0)

    def states(self, tree: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return self.leaf(tree) if isinstance(tree, int) else self.join([self.states(part) for part in tree])

    def forward(self, tree: Any) -> torch.Tensor:
        return self.ordered([self.states(part)[0] for part in tree])


TREES = [[[1, 2], 3], [4, [5, 6, 7, 8]], [1, 2], [[[1], 2], 3], [8, [7, 6]], [[1, 2, 3, 4, 5], 6]]


def test_a_method_takes_a_list_of_any_length() -> None:
    fast = run_twice(Lists(), ["leaf", "join", "ordered"], TREES)
    signature = fast.compiled.signature
    assert [name for name in signature.names if name.startswith("join")] == ["join"]
    assert all(operand.variadic for operand in signature["join"].operands)
    assert str(signature["leaf"]).startswith("leaf(flat_0: int64[] < 9)")
    # Code that treats one element unlike the others becomes a cell for each length.
    assert not signature["ordered"].operands[0].variadic


class Integers(nn.Module):
    """Integers that pick a row, and integers that decide what is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, H)
        self.layers = nn.ModuleList(nn.Linear(H, H) for _ in range(3))

    def look(self, word: int, scale: float = 1.0) -> torch.Tensor:
        return scale * self.words.weight[word]

    def layer(self, x: torch.Tensor, depth: int) -> torch.Tensor:
        return self.layers[depth](x) if depth else torch.tanh(x)

    def forward(self, words: list[int]) -> torch.Tensor:
        x = self.look(words[0]) + self.look(scale=0.5, word=words[1])
        for depth in words:
            x = self.layer(x, depth % 3)
        return x


def test_integers_are_attributes_or_constants() -> None:
    fast = run_twice(Integers(), ["look", "layer"], [[1, 2, 3], [4, 5], [6, 7, 8], [3, 3], [1, 0], [2, 8]])
    names = fast.compiled.signature.names
    assert [name for name in names if name.startswith("look")] == ["look", "look_2"]
    assert len([name for name in names if name.startswith("layer")]) == 3


class Lstm(nn.Module):
    """States as tuples, constants and parameters as first states, sequences of several shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.ModuleDict({"up": nn.LSTMCell(H, H), "down": nn.LSTMCell(H, H)})
        self.start = nn.Parameter(torch.randn(H))

    def forward(self, rows: torch.Tensor) -> dict[str, Any]:
        state = (self.start, torch.zeros(H))
        for row in rows:
            state = self.cells["up"](row, state)
        pair = (state[0].unsqueeze(0), torch.zeros(1, H))
        for row in rows.flip(0):
            pair = self.cells["down"](row[None], pair)
        return {"up": state, "down": pair[0], "length": len(rows)}


def test_tuples_of_states_parameters_and_two_shapes() -> None:
    fast = run_twice(Lstm(), ["cells.up", "cells.down"], [torch.randn(n, H) for n in (3, 5, 2, 4, 3)])
    assert set(fast.compiled.paths.values()) == {"stage"}
    assert len(fast.reports) == 1
    # More elements, of lengths that were not met before, and one alone.
    more = [torch.randn(n, H) for n in (7, 1)]
    assert_equal(fast(more), [fast.model(x) for x in more])
    assert_equal(fast(more[0]), fast.model(more[0]))


class Shapes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.Tanh()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cell(x) + 1


def test_a_shape_that_was_not_met_before_is_one_more_cell() -> None:
    fast = run_twice(Shapes(), ["cell"], [torch.randn(3), torch.randn(3)])
    elements = [torch.randn(2, 2), torch.randn(3), torch.randn(2, 2)]
    assert_equal(fast(elements), [fast.model(x) for x in elements])
    assert [name for name in fast.compiled.signature.names if name.startswith("tanh")] == []
    assert [name for name in fast.compiled.signature.names if name.startswith("cell")] == ["cell", "cell_2"]
    assert fast.batches == 4


@pytest.mark.slow
def test_weights_that_change_are_taken_over() -> None:
    model = Integers()
    elements = [[1, 2, 3], [4, 5]]
    fast = run_twice(model, ["look", "layer"], elements)
    with torch.enable_grad():
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        model(elements[0]).sum().backward()
        optimizer.step()
    assert_equal(fast(elements), [model(x) for x in elements])
    compiled = fast.compiled
    model.load_state_dict(Integers().state_dict())
    assert_equal(fast(elements), [model(x) for x in elements])
    assert fast.compiled is compiled
    # Another module in the place of one is another model.
    model.layers[1] = nn.Linear(H, H)
    assert_equal(fast(elements), [model(x) for x in elements])
    assert_equal(fast(elements), [model(x) for x in elements])


class Waiting(nn.Module):
    """Reads a value after every step, for as many steps as the element says."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(H, H)

    def forward(self, steps: int) -> tuple[torch.Tensor, list[float]]:
        kept, read = torch.ones(H), []
        x = self.step(torch.full((H,), float(steps)))
        for _ in range(steps):
            read.append(round(x.sum().item(), 3))
            kept = kept + x
            x = self.step(kept)
        return x + kept, read


class Halves(nn.Module):
    """A cell whose arguments are parts of one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.cell = nn.Linear(4, 8), nn.Bilinear(4, 4, 3)

    def forward(self, x: torch.Tensor) -> Any:
        h = self.first(x)
        return self.cell(h[:, :4], h[:, 4:]), self.cell(h[:, ::2], h[:, 1::2])


def test_arguments_that_are_parts_of_a_tensor() -> None:
    model, elements = Halves(), [torch.randn(1, 4) for _ in range(5)]
    assert_equal(eb.autobatch(model, cells=["first", "cell"])(elements), [model(one) for one in elements])


def test_elements_advance_together_and_early_values_stay() -> None:
    fast = run_twice(Waiting(), ["step"], [5, 1, 7, 3, 7, 2])
    assert len(fast.reports) == 8
    assert fast.reports[0].calls == 12


def test_the_driver_keeps_order_and_ends_what_comes_after_an_error() -> None:
    log: list[str] = []
    driver = Driver(lambda: log.append("compute"))

    def task(name: str, waits: int) -> str:
        try:
            for _ in range(waits):
                driver.wait()
            if name == "bad":
                raise ValueError("no")
            return name
        finally:
            log.append(f"end {name}")

    assert driver.run([lambda: task("a", 2), lambda: task("b", 0), lambda: task("c", 1)]) == ["a", "b", "c"]
    assert log == ["end b", "compute", "end c", "compute", "end a"]
    log.clear()
    with pytest.raises(ValueError, match="no") as caught:
        driver.run([lambda: task("a", 3), lambda: task("bad", 1), lambda: task("c", 5)])
    notes = getattr(caught.value, "__notes__", ["in element 1 of the minibatch"])  # Python 3.11 has notes
    assert notes == ["in element 1 of the minibatch"]
    assert log == ["compute", "end bad", "compute", "compute", "end a", "end c"]  # those before it run to their ends


@pytest.mark.parametrize("leaves", [(), (0,), (1, 4), (0, 1, 2, 3, 4, 5)])
@pytest.mark.parametrize("waits", [(0, 0, 0, 0, 0, 0), (1, 0, 2, 0, 0, 1), (0, 0, 0, 3, 1, 0), (2, 2, 2, 2, 2, 2)])
def test_functions_begin_in_order_in_the_contexts_that_those_before_leave(
    waits: tuple[int, ...], leaves: tuple[int, ...]
) -> None:
    """Whether they wait or not, and where some leave by greenlet's own exception."""
    computed, begun, resumed, ended = [0], [], [], list[int]()
    driver = Driver(lambda: computed.append(len(begun)))
    driver.resumed = resumed.append
    whose = ContextVar("whose", default=-1)

    def task(number: int) -> int:
        assert whose.get() == (ended[-1] if ended else 7)
        whose.set(number)
        begun.append(number)
        for _ in range(waits[number]):
            driver.wait()
            assert whose.get() == number
        if not waits[number]:
            ended.append(number)
        if number in leaves:
            raise GreenletExit
        return number

    token = whose.set(7)
    results = driver.run([partial(task, number) for number in range(6)])
    assert whose.get() == 5  # of the last one
    assert driver.late_variable == ("whose" if any(waits) else "")
    whose.reset(token)
    assert [one for number, one in enumerate(results) if number not in leaves] == [
        number for number in range(6) if number not in leaves
    ]
    assert begun == list(range(6))
    assert driver.rounds == max(waits) + 1
    assert computed == [0] + [6] * max(waits)
    assert sorted(resumed) == sorted(number for number in range(6) for _ in range(waits[number] + 1))


def test_the_first_error_counts_whatever_other_elements_make_of_it() -> None:
    driver = Driver(lambda: None)

    def stubborn() -> None:
        try:
            driver.wait()
        except:  # noqa: E722  (as models of users do)
            raise SystemExit(1) from None

    # The second ends in the first round, while the others wait.
    with pytest.raises(ValueError, match="no"):
        driver.run([stubborn, lambda: int("no"), stubborn])


@pytest.mark.slow
def test_trees_of_random_shapes_are_equal(rng: np.random.Generator) -> None:
    def tree(depth: int) -> Any:
        if depth == 0 or rng.random() < 0.3:
            return int(rng.integers(9))
        return [tree(depth - 1) for _ in range(int(rng.integers(1, 5)))]

    model = Lists()
    fast = eb.autobatch(model, ["leaf", "join"])
    elements = [[tree(4), tree(3)] for _ in range(20)]
    for _ in range(2):
        assert_equal(fast(elements), [model(x) for x in elements])
