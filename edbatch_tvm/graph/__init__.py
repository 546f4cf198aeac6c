"""Instance-graph IR: struct of arrays, builder, merge, validation, text form, networkx view. NumPy only."""

from edbatch_tvm.graph.build import Builder
from edbatch_tvm.graph.equal_nodes import EqualNodes, merge_equal_nodes
from edbatch_tvm.graph.instance import FIRST_EXTERNAL, ZERO, InstanceGraph
from edbatch_tvm.graph.merge import merge
from edbatch_tvm.graph.networkx_view import from_networkx, to_networkx
from edbatch_tvm.graph.spec import Attribute, CellSignature, Operand, Signature, ValueSpec
from edbatch_tvm.graph.text import format_graph, parse_graph
from edbatch_tvm.graph.validate import require_checked, validate
from edbatch_tvm.graph.value import Value

__all__ = [
    "FIRST_EXTERNAL",
    "ZERO",
    "Attribute",
    "Builder",
    "CellSignature",
    "EqualNodes",
    "InstanceGraph",
    "Operand",
    "Signature",
    "Value",
    "ValueSpec",
    "format_graph",
    "from_networkx",
    "merge",
    "merge_equal_nodes",
    "parse_graph",
    "require_checked",
    "to_networkx",
    "validate",
]
