"""Memory plans of scheduled graphs, and PQ trees. NumPy only."""

from edbatch_tvm.memory.plan import PLANS, Plan, plan_memory
from edbatch_tvm.memory.pq_tree import PQTree

__all__ = ["PLANS", "PQTree", "Plan", "plan_memory"]
