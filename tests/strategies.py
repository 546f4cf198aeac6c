"""Hypothesis strategies: random signatures, instance graphs over them, and minibatches.

Needs neither TVM nor the builder. A test of the executor makes one cell for each entry of the drawn signature; every
operand can be fed, because a zero state or an external row fits any operand.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from edbatch_tvm.graph import (
    FIRST_EXTERNAL,
    ZERO,
    Attribute,
    CellSignature,
    InstanceGraph,
    Operand,
    Signature,
    ValueSpec,
    validate,
)

SHAPES = ((4,), (3,), (2, 3))
"""Shapes of values; a signature has one or two of them."""


class Minibatch(NamedTuple):
    """Graphs over one signature."""

    signature: Signature
    instances: list[InstanceGraph]


@st.composite
def signatures(
    draw: DrawFn,
    *,
    max_cells: int = 6,
    max_arity: int = 4,
    max_outputs: int = 3,
    variadic: bool = True,
    attributes: bool = True,
    shapes: tuple[tuple[int, ...], ...] = SHAPES,
) -> Signature:
    """Signatures of 1 to `max_cells` cells named ``cell0``, ``cell1``, ...; values are float32, attributes int32."""
    specs = [ValueSpec(shape) for shape in draw(st.lists(st.sampled_from(shapes), min_size=1, max_size=2, unique=True))]
    spec = st.sampled_from(specs)
    cells = []
    for number in range(draw(st.integers(1, max_cells))):
        operands = [
            Operand(f"x{position}", draw(spec), variadic and draw(st.integers(0, 3)) == 3)
            for position in range(draw(st.integers(0, max_arity)))
        ]
        words = [
            Attribute(f"a{position}", ValueSpec((), "int32"), draw(st.integers(1, 5)))
            for position in range(draw(st.integers(0, 2)) if attributes else 0)
        ]
        outputs = draw(st.lists(spec, min_size=1, max_size=max_outputs))
        cells.append(CellSignature(f"cell{number}", tuple(operands), tuple(words), tuple(outputs)))
    return Signature(cells)


@st.composite
def graphs(
    draw: DrawFn,
    signature: Signature,
    *,
    min_nodes: int = 0,
    max_nodes: int = 12,
    max_repeat: int = 3,
    zero: bool = True,
    external: bool = True,
) -> InstanceGraph:
    """Instance graphs over `signature` with operands from earlier nodes, zero states and external rows.

    Without `external` an operand that no earlier node can feed is a zero state, whatever `zero` says.
    """
    stride, specs = signature.stride, signature.value_specs
    produced: list[list[int]] = [[] for _ in specs]
    rows: list[list[np.ndarray]] = [[] for _ in specs]
    external_spec: list[int] = []
    external_row: list[int] = []
    types: list[int] = []
    pointer = [0]
    values: list[int] = []
    words: dict[tuple[int, str], list[int]] = {}

    def operand(arena: int) -> int:
        choices = len(produced[arena])
        pick = draw(st.integers(0, choices + (2 if external else 1 if zero else 0)))
        if pick < choices:
            return produced[arena][choices - 1 - pick]
        if pick == choices + 1 and external:
            spec = specs[arena]
            seed = draw(st.integers(0, 255))
            external_spec.append(arena)
            external_row.append(len(rows[arena]))
            rows[arena].append(np.random.default_rng(seed).uniform(-1, 1, spec.shape).astype(spec.dtype))
            return FIRST_EXTERNAL - len(external_row) + 1
        if zero or not choices:
            return ZERO
        return produced[arena][-1]

    for node in range(draw(st.integers(min_nodes, max_nodes))):
        kind = draw(st.integers(0, len(signature) - 1))
        cell = signature[kind]
        repeat = draw(st.integers(0, max_repeat)) if cell.variadic_count else 0
        for parameter in cell.operands:
            arena = signature.arena(parameter.spec)
            values.extend(operand(arena) for _ in range(repeat if parameter.variadic else 1))
        for attribute in cell.attributes:
            assert attribute.bound is not None
            words.setdefault((kind, attribute.name), []).append(draw(st.integers(0, attribute.bound - 1)))
        types.append(kind)
        pointer.append(len(values))
        for slot, spec in enumerate(cell.outputs):
            produced[signature.arena(spec)].append(node * stride + slot)

    dtypes = {key: dtype for key, dtype, _ in signature.attribute_columns}
    everything = sorted(value for arena in produced for value in arena)
    outputs = draw(st.lists(st.sampled_from(everything), max_size=4)) if everything else []
    graph = InstanceGraph(
        np.array(types, np.int16),
        np.array(pointer, np.int32),
        np.array(values, np.int32),
        signature,
        attributes={key: np.array(column, dtypes[key]) for key, column in words.items()},
        outputs=np.array(outputs, np.int32),
        external_spec=np.array(external_spec, np.int16),
        external_row=np.array(external_row, np.int32),
        external_data=tuple(
            np.array(group, spec.dtype).reshape(len(group), *spec.shape)
            for group, spec in zip(rows, specs, strict=True)
        )
        if external_row
        else (),
        scalar_output=len(outputs) == 1 and draw(st.booleans()),
    )
    validate(graph)
    return graph


@st.composite
def minibatches(
    draw: DrawFn,
    signature: Signature | SearchStrategy[Signature] | None = None,
    *,
    max_instances: int = 4,
    max_nodes: int = 12,
    external: bool = True,
) -> Minibatch:
    """One signature (drawn unless given) and 1 to `max_instances` graphs over it."""
    if not isinstance(signature, Signature):
        signature = draw(signatures() if signature is None else signature)
    some = graphs(signature, max_nodes=max_nodes, external=external)
    return Minibatch(signature, draw(st.lists(some, min_size=1, max_size=max_instances)))


@st.composite
def bare_graphs(draw: DrawFn, *, max_nodes: int = 20, max_types: int = 5, max_arity: int = 3) -> InstanceGraph:
    """Graphs of one-output nodes without a signature, with type ids that leave gaps."""
    labels = draw(st.lists(st.integers(0, 10**6), min_size=1, max_size=max_types, unique=True))
    types: list[int] = []
    pointer = [0]
    producers: list[int] = []
    for node in range(draw(st.integers(0, max_nodes))):
        types.append(draw(st.sampled_from(labels)))
        if node:
            producers.extend(draw(st.lists(st.integers(0, node - 1), max_size=max_arity)))
        pointer.append(len(producers))
    return InstanceGraph.from_arrays(types, pointer, producers)


_PIECES = st.sampled_from(
    ["", "0", "1", "7", "-", ":", " ", "\n", "@", ",", "=", "99999999999999999999", "x", "\u0663"]
)


def edited(data: st.DataObject, text: str) -> str:
    """`text` after a few random edits, for readers that must not crash."""
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(begin, min(len(text), begin + 6)))
        text = text[:begin] + data.draw(_PIECES) + text[end:]
    return text
