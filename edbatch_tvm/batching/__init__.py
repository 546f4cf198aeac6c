"""Batching: policies that turn an instance graph into few batches. NumPy only; fast with :mod:`edbatch_tvm.native`."""

from edbatch_tvm.batching import agenda, depth, fsm, lookahead, ratio  # noqa: F401  (they register themselves)
from edbatch_tvm.batching.api import PolicyLike, as_policy, clear_cache, schedule
from edbatch_tvm.batching.best import BestPolicy, best_policy
from edbatch_tvm.batching.bounds import heights, lower_bound
from edbatch_tvm.batching.check import check_schedule
from edbatch_tvm.batching.choose import choose_policy
from edbatch_tvm.batching.costs import CostTable, calibrate
from edbatch_tvm.batching.encoding import ENCODINGS
from edbatch_tvm.batching.exact import Exact, exact_schedule, optimum
from edbatch_tvm.batching.fsm import FsmPolicy, LearnStats
from edbatch_tvm.batching.learn import AUTO, LEARNERS, learn_policy
from edbatch_tvm.batching.order_bound import order_bound
from edbatch_tvm.batching.policy import FrontierPolicy, Policy, Run, get_policy, policy_names, register_policy
from edbatch_tvm.batching.policy_file import load_policy, save_policy
from edbatch_tvm.batching.qlearning import QLearning
from edbatch_tvm.batching.schedule import Schedule, ScheduleInfo, parse_schedule
from edbatch_tvm.batching.search import SearchPolicy
from edbatch_tvm.batching.structure import structure_digest
from edbatch_tvm.batching.tradeoff import Tradeoff, trade_off

__all__ = [
    "AUTO",
    "ENCODINGS",
    "LEARNERS",
    "BestPolicy",
    "CostTable",
    "Exact",
    "FrontierPolicy",
    "FsmPolicy",
    "LearnStats",
    "Policy",
    "PolicyLike",
    "QLearning",
    "Run",
    "Schedule",
    "ScheduleInfo",
    "SearchPolicy",
    "Tradeoff",
    "as_policy",
    "best_policy",
    "calibrate",
    "check_schedule",
    "choose_policy",
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
    "structure_digest",
    "trade_off",
]
