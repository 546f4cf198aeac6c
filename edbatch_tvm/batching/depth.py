"""Policy ``depth``: nodes of equal depth and type together (TensorFlow Fold; Looks et al., ICLR 2017)."""

from __future__ import annotations

from edbatch_tvm.batching import native_kernels
from edbatch_tvm.batching.bounds import depths
from edbatch_tvm.batching.policy import Policy, Run, register_policy
from edbatch_tvm.batching.schedule import Schedule
from edbatch_tvm.graph import InstanceGraph


class DepthPolicy(Policy):
    """One batch for each (depth, type), by depth, then by type id."""

    name = "depth"

    def run(self, graph: InstanceGraph) -> Run:
        """Schedule `graph`."""
        kernels = native_kernels.kernels()
        if kernels is None:
            return Run(self.reference(graph), self.name)
        return Run(Schedule.for_graph(graph, *kernels.depth_schedule(graph)), self.name)

    def reference(self, graph: InstanceGraph) -> Schedule:
        """Schedule `graph` in plain Python."""
        groups: dict[tuple[int, int], list[int]] = {}
        for node, (depth, type_id) in enumerate(zip(depths(graph), graph.node_type.tolist(), strict=True)):
            groups.setdefault((depth, type_id), []).append(node)
        return Schedule.from_batches(graph, [(type_id, nodes) for (_, type_id), nodes in sorted(groups.items())])


register_policy("depth", DepthPolicy)
