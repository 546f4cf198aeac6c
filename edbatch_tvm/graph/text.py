"""Text form of instance graphs: prints, and parses back to an equal graph.

::

    cell leaf(word: int32[] < 256) -> (float32[4], float32[4])
    cell add(h: float32[4], c: float32[4], r: k*float32[4]) -> (float32[4])
    external float32[4] [0.5, 1.0, 0.0, 2.0]
    instance
      %0 = leaf() word=3
      %1 = add(%0.0, %0.1, zero, @0)
      return %1.0

A bare graph has no ``cell`` lines and its node types are numbers. Values of a cell with one output may be written
``%1``; ``return [%1]`` declares a list, ``return %1`` one value.
"""

from __future__ import annotations

import ast
import re
from typing import Any

import numpy as np

from edbatch_tvm.errors import DataError
from edbatch_tvm.graph.instance import FIRST_EXTERNAL, ZERO, InstanceGraph
from edbatch_tvm.graph.spec import Attribute, CellSignature, Operand, Signature, ValueSpec
from edbatch_tvm.graph.validate import validate


def format_graph(graph: InstanceGraph) -> str:
    """The text form of `graph`."""
    lines = [f"cell {cell}" for cell in graph.signature] if graph.signature is not None else []
    for arena, row in zip(graph.external_spec.tolist(), graph.external_row.tolist(), strict=True):
        assert graph.signature is not None
        lines.append(f"external {graph.signature.value_specs[arena]} {graph.external_data[arena][row].tolist()}")
    single = graph.signature is None or graph.stride == 1
    stride, names = graph.stride, graph.type_names
    values, pointer, types = graph.operand_value.tolist(), graph.operand_ptr.tolist(), graph.node_type.tolist()

    def show(value: int) -> str:
        if value == ZERO:
            return "zero"
        if value <= FIRST_EXTERNAL:
            return f"@{FIRST_EXTERNAL - value}"
        return f"%{value}" if single else f"%{value // stride}.{value % stride}"

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
                    attributes += f" {attribute.name}={row}"
            seen[kind] += 1
            lines.append(f"  %{node} = {names[kind]}({text}){attributes}")
        outputs = graph.outputs[graph.output_ptr[instance] : graph.output_ptr[instance + 1]].tolist()
        if outputs:
            text = ", ".join(map(show, outputs))
            lines.append(f"  return {text}" if graph.scalar_output else f"  return [{text}]")
    return "\n".join(lines)


_NODE = re.compile(r"%(\d+) = ([\w$.]+)\(([^()]*)\)(.*)")
_CELL = re.compile(r"cell ([\w$.]+)\((.*)\) -> \((.*)\)")
_SPEC = re.compile(r"(\w+)\[([\d,]*)\]")
_INPUT = re.compile(r"(\w+): (k\*)?(\w+\[[\d,]*\])( < \d+)?(?:, |$)")
_ATTRIBUTE = re.compile(r" (\w+)=")


def parse_graph(text: str, signature: Signature | None = None) -> InstanceGraph:
    """The graph that :func:`format_graph` printed as `text`.

    Parameters
    ----------
    text : str
        Text form.
    signature : Signature, optional
        Used instead of the ``cell`` lines, so that the graph belongs to an existing model.

    Raises
    ------
    DataError
        With the line number, if a line is not of the form.
    GraphError
        If the graph that was read is not well formed.
    """
    parser = _Parser(signature)
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                parser.line(line.strip())
            except (ValueError, SyntaxError, KeyError, IndexError, OverflowError, MemoryError, RecursionError) as error:
                raise DataError(
                    f"line {number}: cannot parse {line.strip()[:80]!r} ({error})", "the text form of a graph"
                ) from None
    graph = parser.graph()
    validate(graph)
    return graph


def _parse_spec(text: str) -> ValueSpec:
    match = _SPEC.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no value spec")
    np.dtype(match[1])
    return ValueSpec(tuple(int(extent) for extent in match[2].split(",") if extent), match[1])


class _Parser:
    def __init__(self, signature: Signature | None) -> None:
        self.given = signature
        self.cells: list[CellSignature] = []
        self.signature = signature
        self.types: list[int] = []
        self.pointer = [0]
        self.values: list[int] = []
        self.node_ptr: list[int] = []
        self.outputs: list[int] = []
        self.output_ptr: list[int] = []
        self.attributes: dict[tuple[int, str], list[Any]] = {}
        self.external: list[tuple[ValueSpec, Any]] = []
        self.scalar = False

    def line(self, line: str) -> None:
        if line.startswith("cell "):
            self.cell(line)
        elif line.startswith("external "):
            _, spec, rest = line.split(" ", 2)
            self.external.append((_parse_spec(spec), ast.literal_eval(rest)))
        elif line == "instance":
            if self.signature is None and self.cells:
                self.signature = Signature(self.cells)
            self.node_ptr.append(len(self.types))
            self.output_ptr.append(len(self.outputs))
        elif line.startswith("return "):
            rest = line[len("return ") :]
            self.scalar = not rest.startswith("[")
            self.outputs.extend(self.value(item) for item in rest.strip("[]").split(", "))
        else:
            self.node(line)

    def cell(self, line: str) -> None:
        match = _CELL.fullmatch(line)
        if match is None:
            raise ValueError("no cell signature")
        operands, attributes = [], []
        for name, variadic, spec, bound in _INPUT.findall(match[2]):
            parsed = _parse_spec(spec)
            if np.dtype(parsed.dtype).kind in "iub":
                attributes.append(Attribute(name, parsed, int(bound[3:]) if bound else None))
            else:
                operands.append(Operand(name, parsed, bool(variadic)))
        outputs = tuple(_parse_spec(item) for item in re.findall(r"\w+\[[\d,]*\]", match[3]))
        self.cells.append(CellSignature(match[1], tuple(operands), tuple(attributes), outputs))

    def value(self, text: str) -> int:
        if text == "zero":
            return ZERO
        if text.startswith("@"):
            return FIRST_EXTERNAL - int(text[1:])
        if not text.startswith("%"):
            raise ValueError(f"{text!r} is no value")
        node, _, slot = text[1:].partition(".")
        stride = self.signature.stride if self.signature is not None else 1
        if slot and not 0 <= int(slot) < stride:
            raise ValueError(f"{text} names output {slot} of at most {stride}")
        return int(node) * stride + int(slot or 0)

    def node(self, line: str) -> None:
        match = _NODE.fullmatch(line)
        if match is None or not self.node_ptr:
            raise ValueError("neither a cell, an instance, a node nor a return line")
        if int(match[1]) != len(self.types):
            raise ValueError(f"node %{match[1]} where %{len(self.types)} is next")
        kind = self.signature.type_id(match[2]) if self.signature is not None else int(match[2])
        self.types.append(kind)
        self.values.extend(self.value(item) for item in match[3].split(", ") if item)
        self.pointer.append(len(self.values))
        pieces = _ATTRIBUTE.split(match[4])
        for name, row in zip(pieces[1::2], pieces[2::2], strict=True):
            self.attributes.setdefault((kind, name), []).append(ast.literal_eval(row))

    def graph(self) -> InstanceGraph:
        if self.signature is None:
            graph = InstanceGraph.from_arrays(self.types, self.pointer, self.values)
            types, label = graph.node_type, graph.type_label
        else:
            types, label = np.array(self.types, np.int16), None
        external: dict[str, Any] = {}
        if self.external and self.signature is not None:
            specs = self.signature.value_specs
            groups: list[list[Any]] = [[] for _ in specs]
            arenas, rows = [], []
            for spec, row in self.external:
                arena = self.signature.arena(spec)
                arenas.append(arena)
                rows.append(len(groups[arena]))
                groups[arena].append(row)
            external = {
                "external_spec": np.array(arenas, np.int16),
                "external_row": np.array(rows, np.int32),
                "external_data": tuple(
                    np.array(group, spec.dtype).reshape(len(group), *spec.shape)
                    for group, spec in zip(groups, specs, strict=True)
                ),
            }
        return InstanceGraph(
            types,
            np.array(self.pointer, np.int32),
            np.array(self.values, np.int32),
            self.signature,
            attributes={key: self.attribute(key, rows) for key, rows in self.attributes.items()},
            outputs=np.array(self.outputs, np.int32),
            node_ptr=np.array([*(self.node_ptr or [0]), len(self.types)], np.int32),
            output_ptr=np.array([*(self.output_ptr or [0]), len(self.outputs)], np.int32),
            type_label=label,
            scalar_output=self.scalar,
            **external,
        )

    def attribute(self, key: tuple[int, str], rows: list[Any]) -> np.ndarray:
        assert self.signature is not None
        for attribute in self.signature[key[0]].attributes:
            if attribute.name == key[1]:
                return np.array(rows, attribute.spec.dtype).reshape(len(rows), *attribute.spec.shape)
        raise DataError(f"attribute {key[1]!r} of {self.signature[key[0]].name!r}", str(self.signature[key[0]]))
