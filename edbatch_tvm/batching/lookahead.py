"""Policy ``lookahead``: the type whose execution leaves the smallest remaining bound."""

from __future__ import annotations

from edbatch_tvm.batching.frontier import Frontier
from edbatch_tvm.batching.policy import FrontierPolicy, register_policy


def choose_lookahead(frontier: Frontier) -> int:
    """Tight types first, then the type with most ready nodes, then the smaller type id.

    Running a type lowers the remaining bound by one if it is *tight* and leaves it alone otherwise (see
    :meth:`Frontier.tight`), so this is the greedy rule "least remaining bound, then most nodes".
    """
    tight = frontier.tight()
    size = frontier.size
    return max((t for t in range(frontier.num_types) if size[t]), key=lambda t: (tight[t], size[t], -t))


class LookaheadPolicy(FrontierPolicy):
    """One step of lookahead by typewise heights."""

    name = "lookahead"
    native = True

    def choose(self, frontier: Frontier) -> int:
        """The type that :func:`choose_lookahead` names."""
        return choose_lookahead(frontier)


register_policy("lookahead", LookaheadPolicy)
