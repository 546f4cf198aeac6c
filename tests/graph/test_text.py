"""Text form: what is printed parses back; what is no text form is one error."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edbatch_tvm.errors import DataError, EdbatchError
from edbatch_tvm.graph import (
    Attribute,
    Builder,
    CellSignature,
    InstanceGraph,
    Operand,
    Signature,
    ValueSpec,
    format_graph,
    merge,
    parse_graph,
)
from tests.graph.cells import TREE
from tests.graph.oracle import assert_same
from tests.strategies import Minibatch, bare_graphs, minibatches

GOLDEN = """\
cell leaf(word: int32[] < 9) -> (float32[4], float32[3])
cell pair(h1: float32[4], c1: float32[3], h2: float32[4], c2: float32[3]) -> (float32[4], float32[3])
cell join(hs: k*float32[4], first: float32[4], cs: k*float32[3]) -> (float32[4], float32[3])
cell readout(h: float32[4]) -> (float32[3])
cell scale(h: float32[4], by: float32[], at: int64[2]) -> (float32[4])
external float32[] 0.5
external float32[4] [1.0, NaN, Infinity, 0.10000000149011612]
instance
  %0 = leaf() word=3
  %1 = leaf() word=8
  %2 = pair(%0.0, %0.1, %1.0, zero)
  %3 = scale(%2.0, @0) at=[5, -6]
  return %3.0
instance
  %4 = join(zero)
  %5 = join(@1, %4.0, zero)
  return %4.1"""


def golden() -> InstanceGraph:
    b = Builder(TREE)
    h0, c0 = b.call("leaf", word=3)
    h1, _ = b.call("leaf", word=8)
    h, _ = b.call("pair", h0, c0, h1, b.zero)
    first = b.finish(b.call("scale", h, 0.5, at=[5, -6]))
    h, c = b.call("join", [], b.zero, [])
    b.call("join", [np.array([1, np.nan, np.inf, 0.1], np.float32)], h, [b.zero])
    return merge([first, b.finish(c)])


def test_golden() -> None:
    assert format_graph(golden()) == GOLDEN
    assert str(golden()) == GOLDEN
    assert_same(parse_graph(GOLDEN), golden())
    assert parse_graph(GOLDEN).scalar_output.all()


@given(minibatches())
def test_round_trip(minibatch: Minibatch) -> None:
    graph = merge(minibatch.instances)
    text = format_graph(graph)
    for parsed in (parse_graph(text), parse_graph(text, minibatch.signature)):
        assert_same(parsed, graph)
        assert parsed.scalar_output.tolist() == graph.scalar_output.tolist()
        assert format_graph(parsed) == text


@given(st.lists(bare_graphs(), min_size=1, max_size=3))
def test_round_trip_of_bare_graphs(instances: list[InstanceGraph]) -> None:
    graph = merge(instances)
    parsed = parse_graph(format_graph(graph))
    assert_same(parsed, graph)
    assert parsed.signature is None


def test_kinds_of_inputs_survive() -> None:
    """Float attributes and integer operands are marked, other inputs are told by dtype."""
    mask, ids = ValueSpec((2,), "bool"), ValueSpec((), "int64")
    odd = CellSignature(
        "odd",
        (Operand("i", ids), Operand("many", ids, True), Operand("m", mask)),
        (Attribute("x", ValueSpec((2,))), Attribute("flag", mask), Attribute("byte", ValueSpec((), "uint8"), 7)),
        (ids, mask),
    )
    b = Builder(Signature([odd]))
    i, m = b.call("odd", b.zero, [], np.array([True, False]), x=[0.1, -np.inf], flag=[True, False], byte=6)
    b.call("odd", i, [i, i], m, x=[1, 2], flag=[False, False], byte=0)
    graph = b.finish([i])
    text = format_graph(graph)
    assert text.startswith(
        "cell odd(i: operand int64[], many: k*int64[], m: operand bool[2], "
        "x: attribute float32[2], flag: bool[2], byte: uint8[] < 7) -> (int64[], bool[2])"
    )
    assert_same(parse_graph(text), graph)


def test_short_forms() -> None:
    head = "\n".join(GOLDEN.splitlines()[:5])
    short = parse_graph(f"{head}\n\ninstance\n%0 = leaf() word=1\n   %1 = readout(%0)\nreturn [%1]\n")
    long = parse_graph(f"{head}\ninstance\n  %0 = leaf() word=1\n  %1 = readout(%0.0)\n  return [%1.0]")
    assert_same(short, long)
    assert not short.scalar_output.any()


def test_each_instance_has_its_own_form_of_return() -> None:
    graph = parse_graph("instance\n  %0 = 1()\n  return %0\ninstance\n  %1 = 1()\n  return [%1]\ninstance")
    assert graph.scalar_output.tolist() == [True, False, False]
    assert graph.output_ptr.tolist() == [0, 1, 2, 2]
    assert_same(parse_graph(format_graph(graph)), graph)


def test_existing_signature_needs_no_cell_lines() -> None:
    graph = parse_graph("instance\n  %0 = leaf() word=1", TREE)
    assert graph.signature is TREE


HEAD = "cell a(w: int32[] < 4) -> (float32[2])\ncell b(x: float32[2]) -> (float32[2])\n"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", None, "no line 'instance'"),
        (HEAD, None, "no line 'instance'"),
        ("nonsense", 1, "a line 'instance' comes first"),
        ("%0 = 1()", 1, "a line 'instance' comes first"),
        ("instance\nnonsense", 2, "neither a cell, external, instance, node nor return line"),
        ("instance\n%1 = 1()", 2, "node %1 where %0 is next"),
        ("instance\n%0 = a()", 2, "type 'a' is no type id; there are no cell lines"),
        (f"instance\n%0 = {2**63}()", 2, "is no type id"),
        ("instance\n%0 = 1() w=1", 2, "an attribute in a graph without cell lines"),
        ("instance\n%0 = 1(x)", 2, "'x' is no value"),
        ("instance\n%0 = 1()\n%1 = 1(%-1)", 3, "'%-1' is no value"),
        ("instance\n%0 = 1()\n%1 = 1(%0 %0)", 3, "'%0 %0' is no value"),
        ("instance\n%0 = 1()\n%1 = 1(%0.1)", 3, "%0.1 names output 1; the cells have at most 1"),
        (f"instance\n%0 = 1(%{2**31})", 2, "is too large"),
        ("instance\n%0 = 1(@0)", 2, "@0 is not one of the 0 external rows"),
        ("instance\n%0 = 1()\nreturn %0, %0", 3, "'%0, %0' is no value"),
        ("instance\n%0 = 1()\nreturn %0\n%1 = 1()", 4, "'return' ends an instance"),
        ("instance\ncell a() -> ()", 2, "cell lines come first"),
        ("cell a", 1, "no cell signature"),
        ("cell a(x) -> ()", 1, "'x' is no operand or attribute"),
        ("cell a(x: float32) -> ()", 1, "'float32' is no value spec"),
        ("cell a(x: float33[2]) -> ()", 1, "'float33' is no dtype"),
        ("cell a(x: intp[2]) -> ()", 1, "'intp' is no dtype"),
        ("cell a(x: float32[2] < 3) -> ()", 1, "operand 'x' with a bound"),
        ("cell a(x: float32[99999,99999]) -> ()", 1, "a value of this shape is too large"),
        ("cell a() -> (float32[2])\ncell a() -> (float32[2])\ninstance", 3, "two cells have one name"),
        ("cell a(x: int32[], x: int32[]) -> (float32[2])\ninstance", 2, "two inputs of 'a' have one name"),
        (HEAD + "instance\n%0 = c()", 4, "unknown cell 'c'; expected one of a, b"),
        (HEAD + "instance\n%0 = a()", 4, "attributes [] where ['w'] are expected"),
        (HEAD + "instance\n%0 = a() w=1 w=1", 4, "attributes ['w', 'w'] where ['w'] are expected"),
        (HEAD + "instance\n%0 = a() w=1.5", 4, "float64 where int32[] is expected"),
        (HEAD + "instance\n%0 = a() w=[1]", 4, "shape (1,) where int32[] is expected"),
        (HEAD + f"instance\n%0 = a() w={2**31}", 4, "a number that does not fit int32"),
        (HEAD + "instance\n%0 = a() w=x", 4, "Expecting value"),
        (HEAD + "instance\n%0 = a() rubbish", 4, "neither a cell, external, instance, node nor return line"),
        (HEAD + "external float32[3] [1, 2, 3]\ninstance", 3, "a value of float32[3]; expected one of float32[2]"),
        (HEAD + "external float32[2] [1]\ninstance", 3, "shape (1,) where float32[2] is expected"),
        (HEAD + 'external float32[2] ["1", "2"]\ninstance', 3, "where float32[2] is expected"),
        (HEAD + "external float32[2]\ninstance", 3, "'external', a value spec of the cells and a row are expected"),
        ("external float32[2] [1, 2]\ninstance", 1, "'external', a value spec of the cells and a row are expected"),
    ],
)
def test_malformed(text: str, line: int | None, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_graph(text)
    message = str(caught.value)
    assert reason in message
    assert message.startswith(f"line {line}: cannot parse" if line else reason)
    assert message.endswith("; expected the text form of a graph")


def test_other_cells_than_the_models() -> None:
    with pytest.raises(DataError, match=r"line 3: .*the cell lines above are not the cells of the model"):
        parse_graph(HEAD + "instance", TREE)


@given(st.data(), minibatches(max_instances=2, max_nodes=5))
def test_changed_text_is_a_graph_or_one_error(data: st.DataObject, minibatch: Minibatch) -> None:
    text = format_graph(merge(minibatch.instances))
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.integers(0, len(text)))
        end = min(len(text), begin + data.draw(st.integers(0, 4)))
        new = data.draw(
            st.sampled_from(["", "0", "7", "99999999999", "%", "@", "-", ".", "[", "]", "(", "\n", " ", "é"])
        )
        text = text[:begin] + new + text[end:]
    with contextlib.suppress(EdbatchError):
        parse_graph(text)


@given(st.text(st.sampled_from("cell instance external return%@=()[]{}:,.<-k*07afloat32 \n\"'"), max_size=80))
def test_random_text_is_a_graph_or_one_error(text: str) -> None:
    for attempt in (text, f"instance\n{text}", f"{HEAD}instance\n{text}", f"{HEAD}external float32[2] {text}"):
        with contextlib.suppress(EdbatchError):
            parse_graph(attempt)


def test_deeply_nested_rows_are_refused() -> None:
    with pytest.raises(DataError, match="line 3"):
        parse_graph(HEAD + "external float32[2] " + "[" * 100_000 + "]" * 100_000 + "\ninstance")
