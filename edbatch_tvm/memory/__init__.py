"""Memory plans of scheduled graphs. NumPy only."""

from edbatch_tvm.memory.plan import PLANS, Plan, plan_memory

__all__ = ["PLANS", "Plan", "plan_memory"]
