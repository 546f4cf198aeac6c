"""PQ trees against brute force, McConnell's theorem, and constraints whose answer is known."""

from __future__ import annotations

import itertools
import random
from math import factorial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edbatch_tvm.errors import PlanError
from edbatch_tvm.memory import PQTree
from tests.memory.consecutive_ones import brute_force, can_be_consecutive, check_witness, is_consecutive


@st.composite
def constraints(draw: st.DrawFn, most: int) -> tuple[int, list[list[int]]]:
    """Number of leaves, and sets of them; small sets more often than large ones."""
    n = draw(st.integers(1, most))
    sets = st.lists(st.integers(0, n - 1), max_size=n, unique=True)
    return n, draw(st.lists(sets, max_size=8))


def check_against_brute_force(n: int, sets: list[list[int]]) -> None:
    tree = PQTree(n)
    held: list[list[int]] = []
    allowed = brute_force(n, [])
    for one in sets:
        before = str(tree)
        fitting = {order for order in allowed if is_consecutive(order, one)}
        assert tree.reduce(one) == bool(fitting)
        if fitting:
            held.append(one)
            allowed = fitting
            assert tree.witness is None
        else:
            assert str(tree) == before
            witness = tree.witness
            assert witness is not None
            assert sorted(witness[-1]) == sorted(one)
            assert {frozenset(member) for member in witness[:-1]} <= {frozenset(member) for member in held}
            assert not brute_force(n, witness)
            for number in range(len(witness)):
                assert brute_force(n, witness[:number] + witness[number + 1 :])
        orders = [tuple(order) for order in tree.orders()]
        assert len(orders) == len(set(orders))
        assert set(orders) == allowed
        assert tuple(tree.frontier()) in allowed


@settings(max_examples=300)
@given(constraints(5))
def test_orders_equal_brute_force(case: tuple[int, list[list[int]]]) -> None:
    check_against_brute_force(*case)


def test_thousands_of_small_cases() -> None:
    rng = random.Random(0)
    for _ in range(2500):
        n = rng.randint(1, 5)
        check_against_brute_force(n, [rng.sample(range(n), rng.randint(0, n)) for _ in range(rng.randint(0, 5))])


def test_cases_of_seven_leaves() -> None:
    rng = random.Random(1)
    for _ in range(30):
        n = rng.choice([6, 7])
        check_against_brute_force(n, [rng.sample(range(n), rng.randint(2, 4)) for _ in range(rng.randint(2, 6))])


@pytest.mark.slow
def test_thousands_of_cases_of_seven_leaves() -> None:
    rng = random.Random(2)
    for _ in range(3000):
        n = rng.randint(5, 7)
        check_against_brute_force(n, [rng.sample(range(n), rng.randint(0, n)) for _ in range(rng.randint(0, 7))])


@given(constraints(14))
def test_copy_text_and_base(case: tuple[int, list[list[int]]]) -> None:
    n, sets = case
    tree = PQTree(n)
    for one in sets:
        twin = tree.copy()
        before = str(tree)
        parsed = PQTree.parse(before)
        assert str(parsed) == before == str(twin)
        done = tree.reduce(one)
        assert parsed.reduce(one) == done
        assert str(parsed) == str(tree)
        assert str(twin) == before
        assert twin.reduce(one) == done
        assert twin.witness == tree.witness


@given(constraints(6), st.data())
def test_restricted_to_a_consecutive_subset(case: tuple[int, list[list[int]]], data: st.DataObject) -> None:
    n, sets = case
    tree = PQTree(n)
    held = [one for one in sets if tree.reduce(one) and len(one) > 1]
    if held:
        chosen = data.draw(st.sampled_from(held))
        before = str(tree)
        constraints = tree.restricted(chosen)
        assert str(tree) == before
        place = {leaf: number for number, leaf in enumerate(chosen)}
        smaller = PQTree(len(chosen))
        assert all(smaller.reduce(place[leaf] for leaf in one) for one in constraints)
        expected = {tuple(place[leaf] for leaf in order if leaf in place) for order in tree.orders()}
        assert {tuple(order) for order in smaller.orders()} == expected


@pytest.mark.parametrize("seed", range(40))
def test_middle_sizes_against_the_theorem(seed: int) -> None:
    """Sets near the edge between feasible and not: intervals of a hidden order, some with members exchanged."""
    rng = random.Random(seed)
    n = rng.randint(10, 40)
    hidden = rng.sample(range(n), n)
    tree = PQTree(n)
    held: list[list[int]] = []
    for _ in range(25):
        size = rng.randint(2, 6)
        at = rng.randrange(n - size + 1)
        one = hidden[at : at + size]
        if rng.random() < 0.2:
            one = [*one[1:], hidden[(at + size) % n] if rng.random() < 0.5 else rng.randrange(n)]
        done = tree.reduce(one)
        assert done == can_be_consecutive(n, [*held, one])
        if done:
            held.append(one)
            assert all(is_consecutive(tree.frontier(), member) for member in held)
        else:
            assert tree.witness is not None
            check_witness(n, tree.witness)


@pytest.mark.parametrize("n", [100, 5000])
def test_large_intervals_of_a_hidden_order(n: int) -> None:
    rng = random.Random(n)
    hidden = rng.sample(range(n), n)
    sets = []
    for _ in range(n // 2):
        size = rng.choice([2, 3, 5, 20, 60])
        at = rng.randrange(n - size + 1)
        sets.append(rng.sample(hidden[at : at + size], size))
    tree = PQTree(n)
    assert all(tree.reduce(one) for one in sets)
    place = {leaf: position for position, leaf in enumerate(tree.frontier())}
    assert sorted(place) == list(range(n))
    for one in sets:
        places = [place[leaf] for leaf in one]
        assert max(places) - min(places) == len(one) - 1


def tucker(kind: str, k: int) -> list[list[int]]:
    """Tucker's smallest sets without a consecutive order (1972), families I to V, over leaves 0, 1, ..."""
    steps = [[i, i + 1] for i in range(k + 1)]
    end = k + 1
    return {
        "I": [*steps, [0, end]],
        "II": [*steps, [*range(end), end + 1], [*range(1, end + 1), end + 1]],
        "III": [*steps, [*range(1, end), end + 1]],
        "IV": [[0, 1], [2, 3], [4, 5], [0, 2, 4]],
        "V": [[0, 1], [0, 1, 2, 3], [2, 3], [0, 2, 4]],
    }[kind]


@pytest.mark.parametrize("kind", ["I", "II", "III", "IV", "V"])
@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_planted_obstructions(kind: str, k: int) -> None:
    """Each of Tucker's matrices, among constraints that do no harm, is found and is the witness."""
    rng = random.Random(k)
    obstruction = tucker(kind, k)
    used = 1 + max(itertools.chain(*obstruction))
    n = used + 500
    names = rng.sample(range(n), n)
    rest = names[used:]
    harmless = []
    for _ in range(200):
        at = rng.randrange(len(rest) - 8)
        harmless.append(rest[at : at + rng.randint(2, 8)])
    planted = [[names[leaf] for leaf in one] for one in obstruction]
    for number in range(len(planted)):
        others = planted[:number] + planted[number + 1 :]
        tree = PQTree(n)
        mixed = rng.sample(harmless + others, len(harmless) + len(others))
        assert all(tree.reduce(one) for one in mixed)
        before = tree.frontier()
        assert not tree.reduce(planted[number])
        assert tree.frontier() == before
        assert tree.witness is not None
        assert {frozenset(one) for one in tree.witness} == {frozenset(one) for one in planted}
        check_witness(n, tree.witness)


def test_number_of_orders() -> None:
    tree = PQTree(6)
    assert sum(1 for _ in tree.orders()) == factorial(6)
    assert tree.reduce([0, 1, 2])
    assert sum(1 for _ in tree.orders()) == factorial(3) * factorial(4)
    assert tree.reduce([1, 2, 3])
    assert sorted(str(tree).replace("(", "").replace(")", "")) == sorted("4 5 [0 1 2 3]")
    assert sum(1 for _ in tree.orders()) == factorial(3) * 2 * 2


def test_deep_trees_need_no_recursion() -> None:
    n = 5000
    text = " (".join(map(str, range(n)))
    text = f"({text.replace(f'({n - 1}', str(n - 1))}" + (n - 1) * ")"
    tree = PQTree.parse(text)
    assert str(tree) == text
    assert next(tree.copy().orders()) == tree.frontier() == list(range(n))
    assert tree.reduce([0, n - 1])
    assert not tree.reduce([0, n // 2])
    assert tree.witness == ((0, n - 1), (0, n // 2))


def test_dot() -> None:
    assert PQTree.parse("(0 [1 2 3])").to_dot().splitlines() == [
        "graph PQTree {",
        "  ordering=out;",
        '  n0 [shape=circle, label="P"];',
        '  l0 [shape=plaintext, label="0"];',
        '  n2 [shape=box, label="Q"];',
        '  l1 [shape=plaintext, label="1"];',
        '  l2 [shape=plaintext, label="2"];',
        '  l3 [shape=plaintext, label="3"];',
        "  n0 -- l0;",
        "  n0 -- n2;",
        "  n2 -- l1;",
        "  n2 -- l2;",
        "  n2 -- l3;",
        "}",
    ]


def test_one_leaf_and_trivial_constraints() -> None:
    tree = PQTree(1)
    assert tree.reduce([0])
    assert tree.reduce([])
    assert (tree.frontier(), list(tree.orders()), str(tree), repr(tree)) == (
        [0],
        [[0]],
        "0",
        "PQTree(leaves=1, constraints=0)",
    )
    assert PQTree(3).reduce([2, 2, 0, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(0 1", "1 open brackets in a PQ tree; expected one root, all brackets closed"),
        ("0 1", "2 roots in a PQ tree"),
        ("(0 1]", "']' at character 4 of a PQ tree; expected the bracket that was opened last"),
        ("(0 x)", "'x' in a PQ tree; expected leaves"),
        ("(0 2)", "leaves \\[0, 2\\] in a PQ tree; expected each of 0 to 1 once"),
        ("[0 1]", "a Q node of 2 children; expected 3 or more"),
        ("((0) 1)", "a P node of 1 children; expected 2 or more"),
    ],
)
def test_messages_of_parse(text: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        PQTree.parse(text)


def test_messages() -> None:
    with pytest.raises(PlanError, match="a PQ tree of 0 leaves; expected 1 or more"):
        PQTree(0)
    with pytest.raises(PlanError, match="leaves -1 to 3; expected leaves of 0 to 3"):
        PQTree(4).reduce([3, -1])
