"""Policy ``agenda``: the ready type of least average depth (DyNet; Neubig et al., NeurIPS 2017)."""

from __future__ import annotations

from fractions import Fraction

from edbatch_tvm.batching.bounds import depths
from edbatch_tvm.batching.frontier import Frontier
from edbatch_tvm.batching.policy import FrontierPolicy, register_policy
from edbatch_tvm.graph import InstanceGraph


class AgendaPolicy(FrontierPolicy):
    """The average is taken once, over all nodes of the type; the smaller type id wins a tie."""

    name = "agenda"
    native = True

    def start(self, graph: InstanceGraph) -> None:
        """Average the depths."""
        total = [0] * graph.num_types
        count = [0] * graph.num_types
        for depth, type_id in zip(depths(graph), graph.node_type.tolist(), strict=True):
            total[type_id] += depth
            count[type_id] += 1
        self._average = [Fraction(s, max(k, 1)) for s, k in zip(total, count, strict=True)]

    def choose(self, frontier: Frontier) -> int:
        """The ready type of least average depth."""
        return min((t for t in range(frontier.num_types) if frontier.size[t]), key=lambda t: (self._average[t], t))


register_policy("agenda", AgendaPolicy)
