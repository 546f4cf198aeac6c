"""What errors say: where, what was given, what was expected, and a hint. One table for each kind of bad input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edbatch_tvm import errors
from edbatch_tvm.cli import main
from edbatch_tvm.errors import CellError, DataError, EdbatchError, GraphError
from edbatch_tvm.graph import Attribute, Builder, CellSignature, InstanceGraph, Operand, Signature, ValueSpec, validate
from tests.graph.cells import TREE, H

PAIR = "pair(h1: float32[4], c1: float32[3], h2: float32[4], c2: float32[3]) -> (float32[4], float32[3])"
JOIN = "join(hs: k*float32[4], first: float32[4], cs: k*float32[3]) -> (float32[4], float32[3])"
LEAF = "leaf(word: int32[] < 9) -> (float32[4], float32[3])"
SCALE = "scale(h: float32[4], by: float32[], at: int64[2]) -> (float32[4])"


def message(error: type[EdbatchError], action: Callable[[], object]) -> str:
    """The text of the one error of class `error` that `action` ends in."""
    with pytest.raises(error) as caught:
        action()
    return str(caught.value)


def test_parts_of_an_error() -> None:
    error = DataError("line 3 is empty", "a tree", "remove it")
    assert str(error) == "line 3 is empty; expected a tree (hint: remove it)"
    assert (error.given, error.expected, error.hint) == ("line 3 is empty", "a tree", "remove it")
    assert str(GraphError("a cycle")) == "a cycle"
    assert isinstance(error, EdbatchError)
    assert isinstance(error, ValueError)


# Graphs from arrays ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("types", "pointer", "operands", "expected"),
    [
        (
            [5, 5, 6],
            [0, 1, 2, 3],
            [1, 0, 0],
            "cyclic graph: nodes [0, 1, 2] wait for each other; node 0 (5) reads node 1; expected a DAG",
        ),
        (
            [5],
            [0, 1],
            [0],
            "cyclic graph: nodes [0] wait for each other; node 0 (5) reads node 0; expected a DAG",
        ),
        (
            [5, 6, 7],
            [0, 0, 1, 1],
            [2],
            "node 1 (6) reads node 2; expected operands before their users "
            "(hint: number the nodes in topological order)",
        ),
        (
            [5, 6],
            [0, 0, 1],
            [2],
            "missing operand: node 1 (6) reads node 2, which does not exist; expected one of the 2 nodes",
        ),
        (
            [5, 6],
            [0, 0, 1],
            [-1],
            "missing operand: node 1 (6) reads value -1, which does not exist; expected one of the 2 nodes",
        ),
    ],
)
def test_order_and_operands(types: list[int], pointer: list[int], operands: list[int], expected: str) -> None:
    assert message(GraphError, lambda: InstanceGraph.from_arrays(types, pointer, operands)) == expected


# Calls ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("builders")
@pytest.mark.parametrize(
    ("arguments", "named", "expected"),
    [
        (("lstm",), {}, "unknown cell 'lstm'; expected one of leaf, pair, join, readout, scale"),
        (("pair", 0, 1, 0, 1, 0), {}, f"5 operands by position for 'pair'; expected 4: {PAIR}"),
        (
            ("leaf", 3),
            {},
            f"1 operands by position for 'leaf'; expected 0: {LEAF} (hint: attributes are given by name)",
        ),
        (("pair", 0, 1, 0), {}, f"missing operand 'c2' in a call of 'pair'; expected {PAIR}"),
        (("leaf",), {}, f"no attribute 'word' in a call of 'leaf'; expected {LEAF}"),
        (("leaf",), {"word": 1, "tag": 2}, f"argument 'tag' for 'leaf'; expected the arguments of {LEAF}"),
        (("readout", 0), {"h": 0}, "operand 'h' of 'readout' by position and by name; expected one of the two"),
        (("join", 0, 0, [1]), {}, "one value for the variadic operand 'hs' of 'join'; expected a list"),
        (
            ("join", [0, 0], 0, [1]),
            {},
            "1 values for 'cs' of 'join'; expected 2, as many as for the cell's other variadic operands",
        ),
    ],
)
def test_calls(arguments: tuple[Any, ...], named: dict[str, Any], expected: str) -> None:
    b = Builder(TREE)
    b.call("leaf", word=1)
    assert message(CellError, lambda: b.call(*arguments, **named)) == expected


# Finished graphs ------------------------------------------------------------------------------------------------


@dataclass
class _Value:
    """A value of the instance that :func:`_finish` builds: 0 and 1 are those of its leaf."""

    number: int


STATE, MEMORY = _Value(0), _Value(1)


def _finish(cell: str, *operands: Any, outputs: tuple[Any, ...] = (), **named: Any) -> str:
    """The error of an instance of one leaf and one call."""
    b = Builder(TREE)
    first, _ = b.call("leaf", word=1)

    def given(item: Any) -> Any:
        if isinstance(item, list):
            return [*map(given, item)]
        return int(first) + item.number if isinstance(item, _Value) else item

    b.call(cell, *map(given, operands), **named)
    return message(GraphError, lambda: b.finish(*map(given, outputs)))


@pytest.mark.usefixtures("builders")
def test_operands_of_wrong_shape_or_kind() -> None:
    assert _finish("readout", MEMORY) == (
        "operand 'h' of node 1 (readout) is output 1 of node 0 (leaf), float32[3]; expected float32[4]"
    )
    assert _finish("join", [STATE, MEMORY], STATE, [MEMORY, MEMORY]) == (
        "operand 'hs' of node 1 (join) is output 1 of node 0 (leaf), float32[3]; expected float32[4]"
    )
    assert _finish("readout", np.ones(3, np.float32)) == (
        "operand 'h' of node 1 (readout) is an external row of float32[3]; expected float32[4]"
    )
    specs = "expected one of float32[4], float32[3], float32[]"
    assert _finish("readout", np.ones(7, np.float32)) == (
        f"an operand of node 1 (readout) is an external row of shape (7,) and dtype float32; {specs}"
    )
    assert _finish("readout", np.ones(4)) == (
        f"an operand of node 1 (readout) is an external row of shape (4,) and dtype float64; {specs}"
    )
    assert _finish("readout", (0, 1)) == (
        "an operand of node 1 (readout) is a tuple; expected a value returned by call() "
        "(hint: a cell of several outputs returns a tuple)"
    )
    assert _finish("readout", None) == (
        "an operand of node 1 (readout) is a NoneType; expected a value returned by call()"
    )
    assert _finish("readout", "0") == "an operand of node 1 (readout) is a str; expected a value returned by call()"
    assert _finish("readout", 2**40) == (
        f"an operand of node 1 (readout) is {2**40}; expected a value returned by call()"
    )


@pytest.mark.usefixtures("builders")
def test_operands_that_do_not_exist() -> None:
    assert _finish("readout", _Value(8)) == (
        "missing operand: node 1 (readout) reads node 4, which does not exist; "
        "expected a node or one of 0 external rows"
    )
    b = Builder(TREE)
    read = b.call("readout", b.zero)
    b.call("pair", read, b.zero, read, b.zero)
    assert message(GraphError, b.finish).startswith(
        "operand 'h1' of node 1 (pair) is output 0 of node 0 (readout), float32[3]; expected float32[4]"
    )
    b.call("readout", int(b.call("readout", b.zero)) + 1)
    assert message(GraphError, b.finish) == (
        "missing operand: operand 'h' of node 1 (readout) is output 1 of node 0 (readout); "
        "expected an output of readout(h: float32[4]) -> (float32[3])"
    )


@pytest.mark.usefixtures("builders")
def test_attributes() -> None:
    assert _finish("leaf", word=9) == "index out of range: 'word' of node 1 (leaf) is 9; expected 0 to 8"
    assert _finish("leaf", word=-1) == "index out of range: 'word' of node 1 (leaf) is -1; expected 0 to 8"
    assert _finish("leaf", word="a").startswith("attribute 'word' of 'leaf' has dtype <U")
    assert _finish("leaf", word=1.5) == "attribute 'word' of 'leaf' has dtype float64 (first: 1); expected int32"
    assert _finish("leaf", word=2**31) == f"attribute 'word' of 'leaf' holds {2**31}; expected numbers that fit int32"
    assert _finish("leaf", word=-(2**31) - 1).startswith(f"attribute 'word' of 'leaf' holds -{2**31 + 1};")
    assert _finish("leaf", word=[1, 2]) == "attribute 'word' of 'leaf' has shapes [(), (2,)]; expected int32[]"
    assert _finish("scale", STATE, 1.0, at=3) == (
        "attribute 'at' of 'scale' has shape () (first: 3); expected int64[2]"
    )


@pytest.mark.usefixtures("builders")
def test_declared_outputs() -> None:
    assert (
        _finish("readout", STATE, outputs=(_Value(9),))
        == "declared output 9 is no value of the graph; expected outputs of its nodes"
    )
    assert _finish("readout", STATE, outputs=(_Value(3),)).startswith("declared output 3 is no value of the graph")
    assert _finish("readout", STATE, outputs=(Builder.zero,)).startswith("declared output -1 is no value of the graph")
    assert _finish("readout", STATE, outputs=(STATE, (0, 1))) == (
        "declared output is a tuple; expected a value returned by call() "
        "(hint: a cell of several outputs returns a tuple)"
    )
    assert _finish("readout", STATE, outputs=(2**40,)) == (
        f"declared output is {2**40}; expected a value returned by call()"
    )
    assert _finish("readout", STATE, outputs=(True,)).startswith("declared output is True; expected a value")


@pytest.mark.usefixtures("builders")
@pytest.mark.parametrize("number", [0, 1, -1, True, 2**31 - 1, np.int32(0), np.int64(-1), np.uint8(1), 2**33])
def test_a_number_is_no_value(number: Any) -> None:
    """``call("scale", h, -1)`` would read the zero state, ``call("scale", h, 0)`` the first node."""
    hint = "" if number == 2**33 else f" (hint: a scalar is written as a float: {float(number)})"
    for operands in ((STATE, number), (number, 1.0)):
        where = "an operand of node 1 (scale)"
        given = "True" if number is True else str(number)
        assert _finish("scale", *operands, at=[0, 0]) == (
            f"{where} is {given}; expected a value returned by call(){hint}"
        )
    assert _finish("join", [number], STATE, [STATE]).startswith("an operand of node 1 (join) is ")
    assert _finish("readout", STATE, outputs=(number,)).endswith("; expected a value returned by call()")


# Graphs put together by hand ------------------------------------------------------------------------------------


def _graph(**changes: Any) -> InstanceGraph:
    """One leaf and one join of it, with `changes` to the arrays."""
    arrays: dict[str, Any] = {
        "node_type": np.array([0, 2], np.int16),
        "operand_ptr": np.array([0, 0, 3], np.int32),
        "operand_value": np.array([0, 0, 1], np.int32),
        "signature": TREE,
        "attributes": {(0, "word"): np.array([3], np.int32)},
    }
    return InstanceGraph(**{**arrays, **changes})


ROWS = (np.zeros((1, 4), np.float32), np.zeros((0, 3), np.float32), np.zeros((0,), np.float32))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"node_type": np.array([0, 7], np.int16)},
            "node 1 has type id 7; expected 0 to 4 (('leaf', 'pair', 'join', 'readout', 'scale'))",
        ),
        (
            {"operand_ptr": np.array([0, 0, 2], np.int32), "operand_value": np.array([0, 0], np.int32)},
            f"node 1 (join) has 2 operands; expected 1 + k * 2: {JOIN}",
        ),
        (
            {"operand_ptr": np.array([0, 1, 3], np.int32), "operand_value": np.array([-1, 0, 1], np.int32)},
            f"node 0 (leaf) has 1 operands; expected 0: {LEAF}",
        ),
        ({"attributes": {}}, f"no attribute 'word' for 1 nodes of 'leaf'; expected {LEAF}"),
        (
            {"attributes": {(0, "word"): np.zeros(2, np.int32)}},
            "attribute 'word' of 'leaf' has shape (2,); expected (1,)",
        ),
        (
            {"attributes": {(0, "word"): np.zeros(1, np.int64)}},
            "attribute 'word' of 'leaf' has dtype int64; expected int32",
        ),
        (
            {"attributes": {(0, "word"): np.zeros(1, np.int32), (2, "tag"): np.zeros(1)}},
            "unknown attribute 'tag' of cell 'join'; expected an attribute of the graph's cells",
        ),
        (
            {"attributes": {(0, "word"): np.zeros(1, np.int32), (9, "tag"): np.zeros(1)}},
            "unknown attribute 'tag' of type id 9; expected an attribute of the graph's cells",
        ),
        (
            {"node_ptr": np.array([0, 1], np.int32)},
            "node_ptr is not a list of offsets; expected 0 first, never falling, 2 last",
        ),
        (
            {"node_ptr": np.array([0, 1, 2], np.int32)},
            "node_ptr and output_ptr have 3 and 2 entries; expected equally many",
        ),
        (
            {"node_ptr": np.empty(0, np.int32), "output_ptr": np.empty(0, np.int32)},
            "node_ptr is not a list of offsets; expected 0 first, never falling, 2 last",
        ),
        (
            {"scalar_output": np.zeros(3, bool)},
            "scalar_output has shape (3,); expected (1,), one entry for each instance",
        ),
        (
            {"output_ptr": np.array([0, 1], np.int32)},
            "output_ptr is not a list of offsets; expected 0 first, never falling, 0 last",
        ),
        (
            {"external_spec": np.array([0], np.int16)},
            "external_spec has 1 entries, external_row 0; expected equally many",
        ),
        (
            {"external_spec": np.array([0], np.int16), "external_row": np.array([0], np.int32)},
            "external_data of nothing; expected rows of float32[4], float32[3], float32[]",
        ),
        (
            {
                "external_spec": np.array([0, 1], np.int16),
                "external_row": np.array([0, 0], np.int32),
                "external_data": ROWS,
            },
            "external row 1 is row 0 of arena 1; expected a row of [1, 0, 0] by arena",
        ),
        (
            {
                "external_spec": np.array([3], np.int16),
                "external_row": np.array([0], np.int32),
                "external_data": ROWS,
            },
            "external row 0 is row 0 of arena 3; expected a row of [1, 0, 0] by arena",
        ),
        (
            {"external_data": ROWS[:2]},
            "external_data of float32[4], float32[3]; expected rows of float32[4], float32[3], float32[]",
        ),
    ],
)
def test_arrays(changes: dict[str, Any], expected: str) -> None:
    validate(_graph())
    assert message(GraphError, lambda: validate(_graph(**changes))) == expected


def test_external_rows_need_cells() -> None:
    graph = InstanceGraph(
        np.zeros(1, np.int16),
        np.zeros(2, np.int32),
        np.empty(0, np.int32),
        external_spec=np.zeros(1, np.int16),
        external_row=np.zeros(1, np.int32),
    )
    assert message(GraphError, lambda: validate(graph)) == "external rows in a graph without cells; expected none"


# Signatures -----------------------------------------------------------------------------------------------------


def test_signatures() -> None:
    cell = CellSignature("cell", (Operand("x", H),), (), (H,))
    assert message(CellError, lambda: Signature([cell, cell])) == (
        "two cells have one name; expected different names (hint: cells: ['cell', 'cell'])"
    )
    twice = CellSignature("cell", (Operand("x", H),), (Attribute("x", ValueSpec((), "int32")),), (H,))
    assert message(CellError, lambda: Signature([twice])) == (
        "two inputs of 'cell' have one name; expected different names "
        "(hint: cell(x: float32[4], x: int32[]) -> (float32[4]))"
    )
    assert message(CellError, lambda: TREE.type_id("x")) == (
        "unknown cell 'x'; expected one of leaf, pair, join, readout, scale"
    )
    assert message(CellError, lambda: TREE.arena(ValueSpec((9,)))) == (
        "a value of float32[9]; expected one of float32[4], float32[3], float32[]"
    )


# Classes and the command line -----------------------------------------------------------------------------------


def test_every_class_of_errors_is_raised() -> None:
    root = Path(errors.__file__).parents[1]
    sources = [path for folder in ("edbatch_tvm", "relay_ext", "schedules") for path in (root / folder).rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources if path.name != "errors.py")
    classes = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, EdbatchError)]
    assert len(classes) > 8
    for kind in classes:
        assert kind is EdbatchError or f"{kind.__name__}(" in text, f"{kind.__name__} is never raised"
        assert kind.__doc__, kind.__name__


@pytest.mark.parametrize(
    "verb",
    [
        "run treelstm",
        "train treelstm --data data --dev dev",
        "learn treelstm",
        "explain treelstm",
        "tune treelstm",
        "bench batching",
        "bench memory",
        "bench costs treelstm",
    ],
)
@pytest.mark.parametrize("options", ["--nonsense", "--seed x", "--json /no/such/folder/file.json"])
def test_bad_options_of_every_verb(verb: str, options: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*verb.split(), *options.split()])
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert error.startswith("edbatch: error: ")
    assert error.count("\n") == 1
    assert options.split()[0] in error


@pytest.mark.parametrize("line", ["", "fly", "run", "run nothing", "bench", "bench nothing", "learn", "explain"])
def test_verbs_and_workloads_that_are_none(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(line.split())
    error = capsys.readouterr().err
    assert caught.value.code == 2
    assert error.startswith("edbatch: error: ")
    assert error.count("\n") == 1
