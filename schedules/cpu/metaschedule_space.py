"""The MetaSchedule space of a tile of instances on CPUs.

A tile runs in one thread (the threads share the tiles of a batch), so nothing is parallelised here. Nothing is
inlined either: the cells that come here have products whose operands cost a softmax or a convolution, and the rule
would compute those anew for every multiply-add.
"""

from __future__ import annotations

from tvm import IRModule
from tvm.target import Target

from edbatch_tvm.tvm_compat import init_tune_context
from edbatch_tvm.tvm_compat import meta_schedule as ms

INNERMOST = 64
"""Largest extent of an innermost tile and of a vectorised loop."""

UNROLLS = (0, 16, 64)


def tile_space(reuse: bool = True) -> ms.SpaceGenerator:
    """Multi-level tiling of products, factored reductions, and where each block is computed.

    `reuse`: products may write to a tile of their own first. MetaSchedule's rule for it fails on some chains of
    products.
    """
    rules = ms.schedule_rule
    return ms.space_generator.PostOrderApply(
        sch_rules=[
            rules.InlineConstantScalars(),
            rules.AddRFactor(max_jobs_per_core=16, max_innermost_factor=INNERMOST),
            rules.MultiLevelTiling(
                structure="SSRSRS",
                tile_binds=None,
                max_innermost_factor=INNERMOST,
                vector_load_lens=None,
                reuse_read=None,
                reuse_write=rules.ReuseType(req="may", levels=[1, 2], scope="global") if reuse else None,
            ),
            rules.ParallelizeVectorizeUnroll(
                max_jobs_per_core=-1,
                max_vectorize_extent=INNERMOST,
                unroll_max_steps=list(UNROLLS),
                unroll_explicit=True,
            ),
            rules.RandomComputeLocation(),
        ],
        postprocs=[
            ms.postproc.DisallowDynamicLoop(),
            ms.postproc.RewriteParallelVectorizeUnroll(),
            ms.postproc.RewriteReductionBlock(),
        ],
        mutator_probs={
            ms.mutator.MutateTileSize(): 0.8,
            ms.mutator.MutateComputeLocation(): 0.1,
            ms.mutator.MutateUnroll(): 0.1,
        },
    )


def _silent(*_: object) -> None:
    """Where MetaSchedule's log goes; the search shows its own progress."""


class TileContext(ms.TuneContext):
    """A tuning context that does not import TVM's tensor intrinsics: that takes 15 s, and this space uses none."""

    def __init__(
        self,
        module: IRModule,
        target: Target,
        strategy: ms.SearchStrategy,
        seed: int,
        threads: int,
        reuse: bool = True,
    ) -> None:
        # Rules and mutators ask the target how many cores it has.
        with_cores = Target({**target.export(), "num-cores": threads})
        init_tune_context(self, module, with_cores, tile_space(reuse), strategy, "tile", threads, seed, _silent)
