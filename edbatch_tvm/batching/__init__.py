"""Batching: policies that turn an instance graph into few batches. NumPy only; fast with :mod:`edbatch_tvm.native`."""

from edbatch_tvm.batching import agenda, depth, fsm, lookahead, postorder, ratio  # noqa: F401  (they register themselves)
from edbatch_tvm.batching.api import PolicyLike, as_policy, clear_cache, schedule
from edbatch_tvm.batching.batches_against_time import BatchesAgainstTime, weigh_batches_against_time
from edbatch_tvm.batching.bounds import heights, lower_bound
from edbatch_tvm.batching.check_schedule import check_schedule
from edbatch_tvm.batching.cost_model import CostTable, calibrate
from edbatch_tvm.batching.encoding import ENCODINGS
from edbatch_tvm.batching.exact import Exact, exact_schedule, optimum
from edbatch_tvm.batching.fsm import FsmPolicy, LearnStats
from edbatch_tvm.batching.graph_keys import structure_digest
from edbatch_tvm.batching.learn import AUTO, LEARNERS, learn_policy
from edbatch_tvm.batching.order_bound import order_bound
from edbatch_tvm.batching.policy import FrontierPolicy, Policy, Run, get_policy, policy_names, register_policy
from edbatch_tvm.batching.policy_file import load_policy, save_policy
from edbatch_tvm.batching.policy_selection import select_policy
from edbatch_tvm.batching.portfolio import PortfolioPolicy, best_policy
from edbatch_tvm.batching.qlearning import QLearning
from edbatch_tvm.batching.schedule import Schedule, ScheduleInfo, parse_schedule
from edbatch_tvm.batching.search import SearchPolicy

__all__ = [
    "AUTO",
    "ENCODINGS",
    "LEARNERS",
    "BatchesAgainstTime",
    "CostTable",
    "Exact",
    "FrontierPolicy",
    "FsmPolicy",
    "LearnStats",
    "Policy",
    "PolicyLike",
    "PortfolioPolicy",
    "QLearning",
    "Run",
    "Schedule",
    "ScheduleInfo",
    "SearchPolicy",
    "as_policy",
    "best_policy",
    "calibrate",
    "check_schedule",
    "clear_cache",
    "exact_schedule",
    "get_policy",
    "heights",
    "learn_policy",
    "load_policy",
    "lower_bound",
    "optimum",
    "order_bound",
    "parse_schedule",
    "policy_names",
    "register_policy",
    "save_policy",
    "schedule",
    "select_policy",
    "structure_digest",
    "weigh_batches_against_time",
]
