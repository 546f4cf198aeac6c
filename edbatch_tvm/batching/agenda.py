"""Policy ``agenda``: the ready type of least average depth (DyNet; Neubig et al., NeurIPS 2017)."""

from __future__ import annotations

from edbatch_tvm.batching.frontier import Frontier
from edbatch_tvm.batching.policy import FrontierPolicy, register_policy


class AgendaPolicy(FrontierPolicy):
    """The average is taken once, over all nodes of the type; the smaller type id wins a tie."""

    name = "agenda"
    native = True

    def choose(self, frontier: Frontier) -> int:
        """The ready type of least average depth."""
        average = frontier.average_depths
        return min((t for t in range(frontier.num_types) if frontier.size[t]), key=lambda t: (average[t], t))


register_policy("agenda", AgendaPolicy)
