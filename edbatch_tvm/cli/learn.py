"""``edbatch learn``: learn a batching policy and save it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edbatch_tvm.cli.options import add_verb, policy_file, positive
from edbatch_tvm.cli.output import learning_bar, print_pairs, write_json


def register(verbs: Any) -> None:
    """Add the verb to `verbs`."""
    parser = add_verb(verbs, "learn", "Learn a batching policy for a workload and save it as a file.", learn)
    add = parser.add_argument
    add("--data", type=Path, metavar="PATH", help="instances to learn from; without it they are generated")
    add(
        "--minibatches",
        type=positive,
        default=8,
        metavar="N",
        help="at most N minibatches, from the start of the file (%(default)s)",
    )
    add(
        "--output",
        type=policy_file,
        metavar="FILE",
        help="where the policy goes (WORKLOAD-ENCODING.json in this folder, with the encoding that was taken)",
    )


def learn(arguments: argparse.Namespace) -> None:
    """Run the verb."""
    from edbatch_tvm.batching import lower_bound, save_policy, schedule
    from edbatch_tvm.benchmarking.policy_learning import LearnOptions, expansion_table
    from edbatch_tvm.benchmarking.policy_learning import learn as learn_policy
    from edbatch_tvm.models import get_workload
    from relay_ext.signature import signature_of

    workload = get_workload(arguments.workload)
    # Of the hidden size only its being different from other sizes matters: it tells ops apart.
    mod = workload.cells(128)
    options = LearnOptions(
        arguments.data,
        arguments.batch_size,
        arguments.minibatches,
        arguments.encoding,
        arguments.learner,
        arguments.seed,
        expansion_table(mod, arguments.granularity),
    )
    with learning_bar() as show:
        learned = learn_policy(workload, signature_of(mod), options, show)
    encoding = learned.policy.encoding
    path = arguments.output or Path(f"{workload.name}-{encoding}.json")
    save_policy(learned.policy, path)
    infos = [schedule(graph, policy=learned.policy)[1] for graph in learned.graphs]
    figures = {
        "workload": workload.name,
        "encoding": encoding,
        "learner": options.learner,
        "granularity": arguments.granularity,
        "learn_data": options.source,
        "batch_size": options.batch_size,
        "minibatches": len(learned.graphs),
        "instances": sum(graph.num_instances for graph in learned.graphs),
        "seed": options.seed,
        "policy_states": infos[0].states,
        "batches": sum(info.batches for info in infos),
        "lower_bound": sum(lower_bound(graph) for graph in learned.graphs),
        "learn_seconds": learned.seconds,
        "policy": str(path),
    }
    if str(arguments.json) != "-":
        print_pairs(
            [
                (
                    "policy",
                    f"{path}: {figures['policy_states']} states, encoding {encoding}, learner {options.learner}",
                ),
                (
                    "learned from",
                    f"{options.source}: {figures['instances']} instances, {len(learned.graphs)} minibatches",
                ),
                ("batches", f"{figures['batches']} on these, lower bound {figures['lower_bound']}"),
                ("seconds", f"{learned.seconds:.2f}"),
            ]
        )
    write_json(arguments.json, figures)
