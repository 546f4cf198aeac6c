"""Every reader and loader of the project with a file that it accepts, in one form: ``load(content, folder)``.

The property is one for all: content that is not of the form ends in an :class:`edbatch_tvm.errors.EdbatchError`, soon,
in little memory, and nothing in it is executed.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tvm import IRModule
from tvm.script import tirx as T
from tvm.target import Target

from edbatch_tvm.batching import CostTable, FsmPolicy, load_policy, parse_schedule, save_policy, schedule
from edbatch_tvm.graph import Builder, InstanceGraph, merge, parse_graph
from edbatch_tvm.memory import parse_plan, plan_memory
from edbatch_tvm.memory.pq_text import format_tree, parse_tree
from edbatch_tvm.models.bilstm_tagger.reader import read_words
from edbatch_tvm.models.bilstm_tagger_char.reader import read_spelled_sentences
from edbatch_tvm.models.checkpoint import Checkpoint, load_checkpoint
from edbatch_tvm.models.childsum_tree.arity import read_flat_trees
from edbatch_tvm.models.lattice_lstm.reader import read_lattices
from edbatch_tvm.models.lstm_nmt.reader import pair_files, read_pairs
from edbatch_tvm.models.treelstm.reader import read_trees
from edbatch_tvm.models.vocabulary import Vocabulary
from edbatch_tvm.models.workload import ReadOptions
from edbatch_tvm.tuning.kernels.database import TuningDatabase, config_trace
from schedules.cpu.stage_config import StageConfig
from tests.graph.cells import TREE

SEPARATOR = b"\x1e"
"""Between the files of a group."""

HASWELL = Target({"kind": "llvm", "mcpu": "haswell"})


@T.prim_func(s_tir=True)
def _double(x: T.Buffer((8,), "float32"), y: T.Buffer((8,), "float32")):
    for i in range(8):
        with T.sblock("double"):
            v = T.axis.spatial(8, i)
            y[v] = x[v] * T.float32(2)


DOUBLE = IRModule({"main": _double.with_attr("global_symbol", "main")})


class Loader(NamedTuple):
    """What reads a kind of file, and a file of this kind."""

    sample: bytes
    load: Callable[[bytes, Path], object]


def _from_file(read: Callable[[Path], object]) -> Callable[[bytes, Path], object]:
    def load(content: bytes, folder: Path) -> object:
        path = folder / "file.json"
        path.write_bytes(content)
        return read(path)

    return load


def _from_text(parse: Callable[[str], object]) -> Callable[[bytes, Path], object]:
    return lambda content, folder: parse(content.decode("utf-8", "replace"))


def _graph() -> InstanceGraph:
    def one(word: int) -> InstanceGraph:
        b = Builder(TREE)
        (h, c), (g, d) = b.call("leaf", word=word), b.call("leaf", word=8)
        h, c = b.call("pair", h, c, g, d)
        h, c = b.call("join", [h, g], np.full(4, 0.5, np.float32), [c, Builder.zero])
        return b.finish([h, b.call("scale", h, 0.25, at=[word, 2])])

    return merge([one(1), one(3)])


GRAPH = _graph()
SCHEDULE, _ = schedule(GRAPH, "depth")


def _pairs(content: bytes, folder: Path) -> object:
    first, _, second = content.partition(SEPARATOR)
    for path, part in zip(pair_files(folder / "pairs"), (first, second), strict=True):
        path.write_bytes(part)
    return read_pairs(folder / "pairs", ReadOptions())


_DATABASE = ("digests.json", "database_workload.json", "database_tuning_record.json")


def _database(content: bytes, folder: Path) -> object:
    database = TuningDatabase(folder, HASWELL, 2, create=True).path
    for name, part in zip(_DATABASE, [*content.split(SEPARATOR), b"", b""], strict=False):
        (database / name).write_bytes(part)
    return TuningDatabase(folder, HASWELL, 2).kept(DOUBLE)


def _kept() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        database = TuningDatabase(folder, HASWELL, 2, create=True)
        database.keep([(DOUBLE, config_trace(DOUBLE, "[]"), 1e-6)])
        return SEPARATOR.join((database.path / name).read_bytes() for name in _DATABASE)


def _policy(path: Path) -> object:
    policy = load_policy(path)
    graph = InstanceGraph.from_arrays([0, 1, 1], [0, 0, 1, 2], [0, 1])
    return schedule(graph, policy, cache=False) if policy.type_names == graph.type_names else None


def _costs(path: Path) -> object:
    table = CostTable.load(path)
    return [table.seconds(name, size) for name in table.as_dict() for size in (1, 10**6)]


def _config(text: str) -> object:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return StageConfig.from_json(document)


def _written(write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.json"
        write(path)
        return path.read_bytes()


_BUCKETS = [
    {"upto": 8, "rows": 1, "chunks": 2, "unroll": 1, "order": "chunks", "parallel": False},
    {"upto": None, "rows": 4, "chunks": 2, "unroll": 2, "order": "rows", "parallel": True},
]

_CHECKPOINT = Checkpoint(
    "treelstm",
    1,
    {"seed": 0},
    {"word": Vocabulary(["a", "b"])},
    ("0", "1"),
    "depth",
    {"W": np.ones((2, 3), np.float32)},
    {"W": {"step": np.array(2.0)}},
    epochs=[{"loss": 0.5}],
)

LOADERS = {
    "trees": Loader(
        b"(3 (2 a) (4 (1 b) (0 -LRB-)))\n\n(2 one\xc2\xa0word)\n", _from_file(lambda p: read_trees(p, ReadOptions()))
    ),
    "flat-trees": Loader(
        b"(3 (2 a) (4 (1 b) (0 c)))\n(2 d)\n", _from_file(lambda p: read_flat_trees(p, ReadOptions()))
    ),
    "sentences": Loader(b"The|O a|b|I-LOC end|O\n\nx|y\n", _from_file(read_words)),
    "spelled": Loader(
        b"The|O a|b|I-LOC end|O\n\nx|y\n", _from_file(lambda p: read_spelled_sentences(p, ReadOptions()))
    ),
    "lattices": Loader(
        b"2\n3\n7 7 7\n0 \n1 0 300\n2 1 4 0 9\n\n1\n0\n0\n\n", _from_file(lambda p: read_lattices(p, ReadOptions()))
    ),
    "pairs": Loader(b"a b\n\nc\n" + SEPARATOR + "đ e f\n\ng\n".encode(), _pairs),
    "graph": Loader(str(GRAPH).encode(), _from_text(parse_graph)),
    "graph-of-a-model": Loader(str(GRAPH).encode(), _from_text(lambda text: parse_graph(text, TREE))),
    "bare-graph": Loader(
        b"instance\n %0 = 7()\n %1 = 9(%0, %0)\ninstance\n %2 = 7()\n return %2", _from_text(parse_graph)
    ),
    "schedule": Loader(str(SCHEDULE).encode(), _from_text(parse_schedule)),
    "plan": Loader(str(plan_memory(SCHEDULE, GRAPH)).encode(), _from_text(lambda text: parse_plan(text, GRAPH))),
    "pq-tree": Loader(b"(0 [1 2 (3 4)] 5)", _from_text(lambda text: format_tree(parse_tree(text)))),
    "policy": Loader(
        _written(lambda path: save_policy(FsmPolicy("sort", ("0", "1"), {(0,): 0, (1,): 1, (0, 1): 1}), path)),
        _from_file(_policy),
    ),
    "checkpoint": Loader(_written(_CHECKPOINT.save), _from_file(load_checkpoint)),
    "costs": Loader(_written(CostTable({"leaf": {1: 1e-6, 8: 3e-6}, "pair": {4: 2e-6}}).save), _from_file(_costs)),
    "tuning-database": Loader(_kept(), _database),
    "stage-config": Loader(json.dumps(_BUCKETS, indent=1).encode(), _from_text(_config)),
}
