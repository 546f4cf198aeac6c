"""Memory plans of scheduled graphs, and PQ trees. NumPy only; fast with :mod:`edbatch_tvm.native`."""

from edbatch_tvm.memory.indexed_operand_report import IndexedOperand, indexed_operands
from edbatch_tvm.memory.plan import PLANS, Plan, plan_memory, resolve_plan
from edbatch_tvm.memory.plan_text import format_plan, parse_plan
from edbatch_tvm.memory.pq_tree import PQTree

__all__ = [
    "PLANS",
    "IndexedOperand",
    "PQTree",
    "Plan",
    "format_plan",
    "indexed_operands",
    "parse_plan",
    "plan_memory",
    "resolve_plan",
]
