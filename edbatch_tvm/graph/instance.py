"""The instance graph: which cell calls which, as a struct of arrays."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edbatch_tvm.cached_property import cached_property
from edbatch_tvm.errors import GraphError
from edbatch_tvm.graph.array_addresses import Addresses, find_addresses
from edbatch_tvm.graph.node_users import Uses, find_uses
from edbatch_tvm.graph.packed import PACKED, unpacked
from edbatch_tvm.graph.spec import Signature

if TYPE_CHECKING:
    import networkx as nx

ZERO = -1
"""Operand value that stands for the zero state of the operand's shape (an initial state)."""

FIRST_EXTERNAL = -2
"""Operand value of external row 0; external row ``i`` is ``FIRST_EXTERNAL - i``."""


class InstanceGraph:
    """A graph of cell calls: of one input, or the disjoint union of several (a minibatch graph).

    Parameters
    ----------
    node_type : int array of shape [n]
        Type id of each node, an index into `signature` where there is one.
    operand_ptr : int array of shape [n + 1]
        The operands of node v are ``operand_value[operand_ptr[v]:operand_ptr[v + 1]]``, in the order of the cell's
        parameters; a variadic parameter's values stand together.
    operand_value : int array of shape [e]
        ``producer * stride + slot`` for output `slot` of node `producer`, :data:`ZERO` for a zero state, and
        ``FIRST_EXTERNAL - i`` for row i of the external inputs. A producer's number is smaller than its users'.
    signature : Signature, optional
        The cells the type ids stand for. None for a bare graph, in which every node has one output.
    attributes : mapping of (type id, attribute name) to array, optional
        One row for each node of the type, in node order.
    outputs : int array, optional
        Declared outputs as values.
    node_ptr, output_ptr : int arrays of shape [instances + 1], optional
        Where the nodes and the outputs of each instance begin. Default: one instance.
    external_spec, external_row : int arrays of shape [m], optional
        External row i is row ``external_row[i]`` of ``external_data[external_spec[i]]``.
    external_data : tuple of arrays, optional
        External rows by arena: one array of shape ``[rows, *spec.shape]`` for each of ``signature.value_specs``.
    type_label : int array, optional
        The type ids a user gave, by dense type id.
    scalar_output : bool, or bool array of shape [instances]
        True for an instance that declared its output as a value, not as a list; its result is the array itself.

    Attributes
    ----------
    checked : bool
        Whether :func:`edbatch_tvm.graph.validate` found no fault in this graph, or in all those it was merged from.
    serial : int
        That of the values which a builder gave out for this graph; 0 for other graphs.
    part_digests : int64 array of shape [parts, 2] or None
        Of a merged graph, the digests of those it was merged from.
    merge_row : bytes or None
        The row of :attr:`addresses`, of a checked graph that has been merged into another, or that is packed.
    packed : bytes or None
        The block in which all arrays lie, of a graph that the native builder made; they become attributes when one of
        them is first asked for (:mod:`edbatch_tvm.graph.packed`).

    Notes
    -----
    The arrays are not copied and must not be changed afterwards: kernels trust a graph that was checked. Those of a
    graph that the builder, :meth:`from_arrays` or :func:`edbatch_tvm.graph.parse_graph` made are read-only.
    :func:`edbatch_tvm.graph.validate` checks them.
    """

    # What merging asks of each instance has a place of its own, which is found without looking into two dicts.
    __slots__ = ("__dict__", "__weakref__", "merge_row", "packed")

    merge_row: bytes | None
    packed: bytes | None

    def __init__(
        self,
        node_type: np.ndarray,
        operand_ptr: np.ndarray,
        operand_value: np.ndarray,
        signature: Signature | None = None,
        *,
        attributes: Mapping[tuple[int, str], np.ndarray] | None = None,
        outputs: np.ndarray | None = None,
        node_ptr: np.ndarray | None = None,
        output_ptr: np.ndarray | None = None,
        external_spec: np.ndarray | None = None,
        external_row: np.ndarray | None = None,
        external_data: tuple[np.ndarray, ...] = (),
        type_label: np.ndarray | None = None,
        scalar_output: bool | np.ndarray = False,
    ) -> None:
        self.node_type = node_type
        self.operand_ptr = operand_ptr
        self.operand_value = operand_value
        self.signature = signature
        self.attributes = dict(attributes or {})
        self.outputs = outputs if outputs is not None else np.empty(0, np.int32)
        self.node_ptr = node_ptr if node_ptr is not None else np.array([0, len(node_type)], np.int32)
        self.output_ptr = output_ptr if output_ptr is not None else np.array([0, len(self.outputs)], np.int32)
        self.external_spec = external_spec if external_spec is not None else np.empty(0, np.int16)
        self.external_row = external_row if external_row is not None else np.empty(0, np.int32)
        self.external_data = external_data
        self.type_label = type_label
        scalar = np.asarray(scalar_output, bool)
        instances = max(self.num_instances, 0)
        if scalar.shape not in ((), (instances,)):
            raise GraphError(f"scalar_output has shape {scalar.shape}", f"({instances},), one entry for each instance")
        self.scalar_output = scalar if scalar.shape else np.full(instances, scalar)
        self.checked = False
        self.serial = 0
        self.part_digests: np.ndarray | None = None
        self.merge_row = None
        self.packed = None

    if not TYPE_CHECKING:  # a type checker knows the attributes from __init__

        def __getattr__(self, name: str) -> Any:
            if name in PACKED and self.packed is not None:
                self._unpack()
                return self.__dict__[name]
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _unpack(self) -> dict[str, Any]:
        """The attributes, with those that are in a packed graph's block among them."""
        attributes = self.__dict__
        if self.packed is not None and "node_type" not in attributes:
            assert self.merge_row is not None
            assert self.signature is not None
            attributes.update(unpacked(self.packed, self.merge_row, self.signature))
        return attributes

    # Construction -----------------------------------------------------------------------------------------------

    @classmethod
    def from_arrays(cls, node_type: Any, operand_ptr: Any, operand_node: Any) -> InstanceGraph:
        """Graph of one-output nodes from arrays.

        Parameters
        ----------
        node_type : array_like of int, shape [n]
            Any non-negative type ids.
        operand_ptr : array_like of int, shape [n + 1]
            CSR offsets of the operands of each node.
        operand_node : array_like of int, shape [operand_ptr[-1]]
            The node that produces each operand; operands come before their users.

        Raises
        ------
        GraphError
            If the arrays do not describe a DAG in this order.

        Examples
        --------
        >>> InstanceGraph.from_arrays([0, 0, 1], [0, 0, 0, 2], [0, 1])
        InstanceGraph(node_type=[3], operand_value=[2], types=2)
        """
        from edbatch_tvm.graph.validate import as_index_array, validate

        labels, dense = np.unique(as_index_array("node_type", node_type, np.int64), return_inverse=True)
        if len(labels) and labels[0] < 0:
            raise GraphError(f"node_type holds {labels[0]}", "type ids of 0 or more")
        if len(labels) > np.iinfo(np.int16).max:
            raise GraphError(f"{len(labels)} different types", f"at most {np.iinfo(np.int16).max}")
        graph = cls(
            dense.astype(np.int16),
            as_index_array("operand_ptr", operand_ptr),
            as_index_array("operand_node", operand_node),
            type_label=labels,
        )
        validate(graph)
        graph.freeze()
        return graph

    @classmethod
    def from_networkx(cls, graph: nx.DiGraph[Any] | nx.MultiDiGraph[Any]) -> InstanceGraph:
        """Graph of one-output nodes from a networkx digraph (edges from producer to user).

        See :func:`edbatch_tvm.graph.networkx_view.from_networkx`.
        """
        from edbatch_tvm.graph.networkx_view import from_networkx

        return from_networkx(graph)

    def to_networkx(self) -> nx.MultiDiGraph[int]:
        """The graph as a networkx multi-digraph; see :func:`edbatch_tvm.graph.networkx_view.to_networkx`."""
        from edbatch_tvm.graph.networkx_view import to_networkx

        return to_networkx(self)

    def freeze(self) -> None:
        """Make the arrays read-only, so that they stay as they were checked."""
        for array in (*self._unpack().values(), *self.attributes.values(), *self.external_data):
            if isinstance(array, np.ndarray):
                array.flags.writeable = False

    def __getstate__(self) -> tuple[dict[str, Any], dict[str, None]]:
        # A copy, here or in another process, lies elsewhere; and builders of another process number theirs.
        state = {name: value for name, value in self._unpack().items() if name != "addresses"}
        return state | {"serial": 0}, {"merge_row": None, "packed": None}

    # Views ------------------------------------------------------------------------------------------------------

    @property
    def num_nodes(self) -> int:
        """Number of nodes."""
        return len(self.node_type)

    @property
    def num_instances(self) -> int:
        """Number of instances merged into this graph (1 for an instance)."""
        return len(self.node_ptr) - 1

    @property
    def stride(self) -> int:
        """Values a node is given room for: value = node * stride + slot."""
        return self.signature.stride if self.signature is not None else 1

    @cached_property
    def num_types(self) -> int:
        """Number of types: cells of the signature, or distinct types of a bare graph."""
        if self.signature is not None:
            return len(self.signature)
        if self.type_label is not None:
            return len(self.type_label)
        return int(self.node_type.max()) + 1 if len(self.node_type) else 0

    @cached_property
    def type_names(self) -> tuple[str, ...]:
        """Cell names, or the type ids of a bare graph as text."""
        if self.signature is not None:
            return self.signature.names
        labels = self.type_label if self.type_label is not None else range(self.num_types)
        return tuple(str(label) for label in labels)

    @cached_property
    def operand_node(self) -> np.ndarray:
        """Producer of each operand as int32[e]; -1 for zero states and external rows."""
        if self.stride == 1 and (not len(self.operand_value) or self.operand_value.min() >= 0):
            return self.operand_value
        node = self.operand_value // np.int32(self.stride)
        node[self.operand_value < 0] = -1
        return node

    @cached_property
    def uses(self) -> Uses:
        """The users of each node, and how many nodes each one waits for."""
        known: Uses | None = self._unpack().get("uses")
        return known if known is not None else find_uses(self.operand_ptr, self.operand_node)

    @cached_property
    def digest(self) -> bytes:
        """Digest of what schedules and plans depend on: types, operands (the output slot included), type names."""
        if self.packed is not None:
            known: bytes | None = self._unpack().get("digest")
            if known is not None:
                return known
        hasher = hashlib.blake2b(repr((self.num_nodes, self.type_names)).encode(), digest_size=16)
        for array in (self.node_type, self.operand_ptr, self.operand_value):
            hasher.update(np.ascontiguousarray(array).data)
        return hasher.digest()

    @cached_property
    def digest_of_parts(self) -> bytes | None:
        """Digest of the digests of the graphs that this was merged from; None if it was not merged.

        Graphs in which it is the same have the same structure. Graphs of the same structure may differ in it.
        """
        parts = self.part_digests
        return None if parts is None else hashlib.blake2b(parts.tobytes(), digest_size=16).digest()

    @cached_property
    def addresses(self) -> Addresses | None:
        """Where the arrays lie, for the native merge; None if they are outside its form."""
        known: Addresses | None = self._unpack().get("addresses")
        return known if known is not None else find_addresses(self)

    def address_row(self) -> bytes | None:
        """The row of :mod:`edbatch_tvm.graph.array_addresses`; None if the arrays are outside its form."""
        if self.merge_row is not None:
            return self.merge_row
        found = self.addresses
        return None if found is None else found.row

    @cached_property
    def external_sizes(self) -> tuple[int, ...]:
        """Rows of external data in each arena."""
        return tuple(map(len, self.external_data)) or (0,) * (len(self.signature.value_specs) if self.signature else 0)

    @cached_property
    def type_count(self) -> np.ndarray:
        """Number of nodes of each type."""
        known: np.ndarray | None = self._unpack().get("type_count")
        return known if known is not None else np.bincount(self.node_type, minlength=self.num_types)

    def nodes_of(self, type_id: int) -> np.ndarray:
        """Nodes of a type in node order."""
        return np.flatnonzero(self.node_type == type_id).astype(np.int32)

    def __len__(self) -> int:
        return self.num_nodes

    def __repr__(self) -> str:
        parts = [f"node_type=[{self.num_nodes}]", f"operand_value=[{len(self.operand_value)}]"]
        parts.append(f"types={self.num_types}")
        if self.num_instances != 1:
            parts.append(f"node_ptr=[{len(self.node_ptr)}]")
        if len(self.outputs):
            parts.append(f"outputs=[{len(self.outputs)}]")
        if len(self.external_row):
            parts.append(f"external=[{len(self.external_row)}]")
        return f"InstanceGraph({', '.join(parts)})"

    def __str__(self) -> str:
        from edbatch_tvm.graph.text import format_graph

        return format_graph(self)
