"""Text form of instance graphs: prints, and parses back to an equal graph.

::

    cell leaf(word: int32[] < 256) -> (float32[4], float32[4])
    cell add(h: float32[4], c: float32[4], r: k*float32[4]) -> (float32[4])
    external float32[4] [0.5, 1.0, 0.0, 2.0]
    instance
      %0 = leaf() word=3
      %1 = add(%0.0, %0.1, zero, @0)
      return %1.0

A bare graph has no ``cell`` lines and its node types are numbers. Output 0 of a node may be written ``%1``;
``return [%1]`` declares a list, ``return %1`` one value. External rows and attributes are JSON.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import numpy as np

from edbatch_tvm.argument_checks import require_type
from edbatch_tvm.errors import DataError
from edbatch_tvm.graph.instance import FIRST_EXTERNAL, ZERO, InstanceGraph
from edbatch_tvm.graph.spec import Attribute, CellSignature, Operand, Signature, ValueSpec, is_attribute_dtype
from edbatch_tvm.graph.validate import validate


def format_graph(graph: InstanceGraph) -> str:
    """The text form of `graph`."""
    lines = [f"cell {cell}" for cell in graph.signature] if graph.signature is not None else []
    for arena, row in zip(graph.external_spec.tolist(), graph.external_row.tolist(), strict=True):
        assert graph.signature is not None
        data = json.dumps(graph.external_data[arena][row].tolist())
        lines.append(f"external {graph.signature.value_specs[arena]} {data}")
    stride, names = graph.stride, graph.type_names
    values, pointer, types = graph.operand_value.tolist(), graph.operand_ptr.tolist(), graph.node_type.tolist()

    def show(value: int) -> str:
        if value == ZERO:
            return "zero"
        if value <= FIRST_EXTERNAL:
            return f"@{FIRST_EXTERNAL - value}"
        return f"%{value}" if stride == 1 else f"%{value // stride}.{value % stride}"

    seen = [0] * graph.num_types
    for instance in range(graph.num_instances):
        lines.append("instance")
        for node in range(int(graph.node_ptr[instance]), int(graph.node_ptr[instance + 1])):
            kind = types[node]
            text = ", ".join(map(show, values[pointer[node] : pointer[node + 1]]))
            attributes = ""
            if graph.signature is not None:
                for attribute in graph.signature[kind].attributes:
                    row = graph.attributes[kind, attribute.name][seen[kind]].tolist()
                    attributes += f" {attribute.name}={json.dumps(row)}"
            seen[kind] += 1
            lines.append(f"  %{node} = {names[kind]}({text}){attributes}")
        outputs = graph.outputs[graph.output_ptr[instance] : graph.output_ptr[instance + 1]].tolist()
        if outputs:
            text = ", ".join(map(show, outputs))
            lines.append(f"  return {text}" if graph.scalar_output[instance] else f"  return [{text}]")
    return "\n".join(lines)


def parse_graph(text: str, signature: Signature | None = None) -> InstanceGraph:
    r"""The graph that :func:`format_graph` printed as `text`.

    Parameters
    ----------
    text : str
        Text form.
    signature : Signature, optional
        The cells of an existing model, so that the graph belongs to it. The ``cell`` lines, if any, must agree.

    Raises
    ------
    DataError
        With the line number, if a line is not of the form.
    GraphError
        If the graph that was read is not well formed.

    Examples
    --------
    >>> graph = parse_graph("instance\n %0 = 7()\n %1 = 9(%0, %0)\ninstance\n %2 = 7()")
    >>> graph
    InstanceGraph(node_type=[3], operand_value=[2], types=2, node_ptr=[3])
    >>> graph.type_names
    ('7', '9')
    """
    require_type(text, str, "the text of a graph", DataError)
    parser = _Parser(signature)
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                parser.line(line.strip())
            except (ValueError, OverflowError, RecursionError) as error:
                _fail(f"line {number}: cannot parse {line.strip()[:80]!r} ({error})")
    if not parser.node_ptr:
        _fail("no line 'instance'")
    graph = parser.graph()
    validate(graph)
    graph.freeze()
    return graph


def _fail(message: str) -> NoReturn:
    raise DataError(message, "the text form of a graph") from None


_INPUT = re.compile(r"(\w+): (k\*|operand |attribute )?(\S+)( < [0-9]+)?")
_CELL = re.compile(r"cell ([\w$.]+)\(([^()]*)\) -> \(([^()]*)\)")
_NODE = re.compile(r"%([0-9]+) = ([\w$.]+)\(([^()]*)\)((?: \w+=.*)?)")
_ATTRIBUTE = re.compile(r" (\w+)=")
_VALUE = re.compile(r"%([0-9]+)(?:\.([0-9]+))?")
_EXTERNAL = re.compile(r"@([0-9]+)")
_SPEC = re.compile(r"((?:bool|bfloat|float|int|uint)\w*)\[([0-9,]*)\]")


def _items(text: str) -> list[str]:
    return text.split(", ") if text else []


def _parse_spec(text: str) -> ValueSpec:
    match = _SPEC.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no value spec")
    try:
        known = np.dtype(match[1]).name == match[1]
    except TypeError:
        known = False
    if not known:
        raise ValueError(f"{match[1]!r} is no dtype")
    spec = ValueSpec(tuple(int(extent) for extent in match[2].split(",") if extent), match[1])
    if len(spec.shape) > 32 or spec.size > np.iinfo(np.int32).max:
        raise ValueError("a value of this shape is too large")
    return spec


def _parse_row(spec: ValueSpec, text: str) -> np.ndarray:
    """A row of `spec` from JSON; nothing is rounded but floats to the spec's precision."""
    given = np.array(json.loads(text))
    if given.shape != spec.shape:
        raise ValueError(f"shape {given.shape} where {spec} is expected")
    kind = np.dtype(spec.dtype).kind
    if given.size and given.dtype.kind not in {"b": "b", "i": "iu", "u": "iu"}.get(kind, "iuf"):
        raise ValueError(f"{given.dtype} where {spec} is expected")
    with np.errstate(over="ignore"):
        row = given.astype(spec.dtype)
    if kind in "iu" and not np.array_equal(row, given):
        raise ValueError(f"a number that does not fit {spec.dtype}")
    return row


class _Parser:
    """Reads line after line; ``node_ptr`` and ``output_ptr`` hold the beginnings of the instances read so far."""

    def __init__(self, signature: Signature | None) -> None:
        self.signature = signature
        self.cells: list[CellSignature] = []
        self.in_header = True
        self.returned = False
        self.scalar: list[bool] = []
        self.types: list[int] = []
        self.pointer = [0]
        self.values: list[int] = []
        self.outputs: list[int] = []
        self.node_ptr: list[int] = []
        self.output_ptr: list[int] = []
        self.attributes: dict[tuple[int, str], list[np.ndarray]] = {}
        self.external: list[tuple[int, np.ndarray]] = []

    def line(self, line: str) -> None:
        if line.startswith("cell "):
            self.cell(line)
            return
        if self.in_header:
            self.in_header = False
            if self.signature is None:
                self.signature = Signature(self.cells) if self.cells else None
            elif self.cells and tuple(self.cells) != self.signature.cells:
                raise ValueError("the cell lines above are not the cells of the model")
        if line.startswith("external "):
            self.external_row(line)
        elif line == "instance":
            self.returned = False
            self.scalar.append(False)
            self.node_ptr.append(len(self.types))
            self.output_ptr.append(len(self.outputs))
        elif not self.node_ptr:
            raise ValueError("a line 'instance' comes first")
        elif self.returned:
            raise ValueError("'return' ends an instance")
        elif line.startswith("return "):
            self.return_values(line[len("return ") :])
        else:
            self.node(line)

    def cell(self, line: str) -> None:
        match = _CELL.fullmatch(line)
        if match is None:
            raise ValueError("no cell signature")
        if not self.in_header:
            raise ValueError("cell lines come first")
        operands, attributes = [], []
        for text in _items(match[2]):
            parts = _INPUT.fullmatch(text)
            if parts is None:
                raise ValueError(f"{text!r} is no operand or attribute")
            name, marker, spec = parts[1], parts[2], _parse_spec(parts[3])
            if marker == "attribute " or (marker is None and is_attribute_dtype(spec.dtype)):
                attributes.append(Attribute(name, spec, int(parts[4][3:]) if parts[4] else None))
            elif parts[4]:
                raise ValueError(f"operand {name!r} with a bound")
            else:
                operands.append(Operand(name, spec, marker == "k*"))
        outputs = tuple(_parse_spec(item) for item in _items(match[3]))
        self.cells.append(CellSignature(match[1], tuple(operands), tuple(attributes), outputs))

    def external_row(self, line: str) -> None:
        parts = line.split(" ", 2)
        if self.signature is None or len(parts) < 3:
            raise ValueError("'external', a value spec of the cells and a row are expected")
        spec = _parse_spec(parts[1])
        self.external.append((self.signature.arena(spec), _parse_row(spec, parts[2])))

    def return_values(self, text: str) -> None:
        scalar = not (text.startswith("[") and text.endswith("]"))
        self.scalar[-1], self.returned = scalar, True
        self.outputs.extend(map(self.value, [text] if scalar else _items(text[1:-1])))

    def value(self, text: str) -> int:
        if text == "zero":
            return ZERO
        external = _EXTERNAL.fullmatch(text)
        if external is not None:
            if int(external[1]) >= len(self.external):
                raise ValueError(f"{text} is not one of the {len(self.external)} external rows")
            return FIRST_EXTERNAL - int(external[1])
        match = _VALUE.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no value")
        stride = self.signature.stride if self.signature is not None else 1
        slot = int(match[2] or 0)
        if slot >= stride:
            raise ValueError(f"{text} names output {slot}; the cells have at most {stride}")
        value = int(match[1]) * stride + slot
        if value > np.iinfo(np.int32).max:
            raise ValueError(f"{text} is too large")
        return value

    def node(self, line: str) -> None:
        match = _NODE.fullmatch(line)
        if match is None:
            raise ValueError("neither a cell, external, instance, node nor return line")
        if int(match[1]) != len(self.types):
            raise ValueError(f"node %{match[1]} where %{len(self.types)} is next")
        values = [self.value(item) for item in _items(match[3])]
        pieces = _ATTRIBUTE.split(match[4])
        names, rows = pieces[1::2], pieces[2::2]
        if self.signature is None:
            if not match[2].isdecimal() or int(match[2]) > np.iinfo(np.int64).max:
                raise ValueError(f"type {match[2]!r} is no type id; there are no cell lines")
            if names:
                raise ValueError("an attribute in a graph without cell lines")
            kind = int(match[2])
        else:
            kind = self.signature.type_id(match[2])
            attributes = self.signature[kind].attributes
            if names != [attribute.name for attribute in attributes]:
                raise ValueError(
                    f"attributes {names} where {[attribute.name for attribute in attributes]} are expected"
                )
            parsed = [_parse_row(a.spec, row) for a, row in zip(attributes, rows, strict=True)]
            for name, row in zip(names, parsed, strict=True):
                self.attributes.setdefault((kind, name), []).append(row)
        self.types.append(kind)
        self.values.extend(values)
        self.pointer.append(len(self.values))

    def graph(self) -> InstanceGraph:
        types, labels = np.array(self.types, np.int64), None
        if self.signature is None:
            labels, types = np.unique(types, return_inverse=True)
            if len(labels) > np.iinfo(np.int16).max:
                _fail(f"{len(labels)} different types")
        return InstanceGraph(
            types.astype(np.int16),
            np.array(self.pointer, np.int32),
            np.array(self.values, np.int32),
            self.signature,
            attributes={key: np.stack(rows) for key, rows in self.attributes.items()},
            outputs=np.array(self.outputs, np.int32),
            node_ptr=np.array([*self.node_ptr, len(self.types)], np.int32),
            output_ptr=np.array([*self.output_ptr, len(self.outputs)], np.int32),
            type_label=labels,
            scalar_output=np.array(self.scalar, bool),
            **self.external_tables(),
        )

    def external_tables(self) -> dict[str, Any]:
        if not self.external or self.signature is None:
            return {}
        specs = self.signature.value_specs
        groups: list[list[np.ndarray]] = [[] for _ in specs]
        rows = []
        for arena, row in self.external:
            rows.append(len(groups[arena]))
            groups[arena].append(row)
        return {
            "external_spec": np.array([arena for arena, _ in self.external], np.int16),
            "external_row": np.array(rows, np.int32),
            "external_data": tuple(
                np.stack(group) if group else np.empty((0, *spec.shape), spec.dtype)
                for group, spec in zip(groups, specs, strict=True)
            ),
        }
