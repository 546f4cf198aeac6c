"""Policy ``ratio``: the type whose typewise frontier is ready to the largest part."""

from __future__ import annotations

from fractions import Fraction

from edbatch_tvm.batching.frontier import Frontier
from edbatch_tvm.batching.policy import FrontierPolicy, register_policy


class RatioPolicy(FrontierPolicy):
    """Largest ``|frontier_t| / |typewise frontier_t|``, then most nodes, then the smaller type id.

    A ratio of 1 is a sufficient condition for running t next to be optimal (Chen et al., ICML 2023, section 3.3).
    """

    name = "ratio"
    native = True
    typewise = True

    def choose(self, frontier: Frontier) -> int:
        """The ready type of largest ratio."""
        size, typewise = frontier.size, frontier.typewise_size
        ready = (t for t in range(frontier.num_types) if size[t])
        return max(ready, key=lambda t: (Fraction(size[t], typewise[t]), size[t], -t))


register_policy("ratio", RatioPolicy)
