"""Where instances come from, and the measured peak."""

from __future__ import annotations

from pathlib import Path

import pytest

from edbatch_tvm.benchmarking import matmul_peak
from edbatch_tvm.benchmarking.policy_learning import refuse_same_file
from edbatch_tvm.errors import DataError
from edbatch_tvm.graph import format_graph
from edbatch_tvm.models.data import GENERATED_MINIBATCHES, LEARN_SEED, load_minibatches, split
from tests.models.conftest import Case, case


def test_minibatches_are_consecutive_and_the_last_may_be_short(trees: Case) -> None:
    instances = trees.workload.generate(7, trees.signature, 0)
    minibatches = split(instances, 3)
    assert [len(minibatch) for minibatch in minibatches] == [3, 3, 1]
    assert [instance for minibatch in minibatches for instance in minibatch] == instances


def test_all_of_a_file_or_the_first_minibatches(trees: Case, tmp_path: Path) -> None:
    path = tmp_path / "trees.txt"
    path.write_text("(2 a)\n" * 5)
    load = load_minibatches(trees.workload, trees.signature, path, 2, None, 0)
    assert [len(minibatch) for minibatch in load] == [2, 2, 1]
    first = load_minibatches(trees.workload, trees.signature, path, 2, 1, 0)
    assert [len(minibatch) for minibatch in first] == [2]


def test_generated_without_a_file(every: Case) -> None:
    load = load_minibatches(every.workload, every.signature, None, 3, None, 0)
    assert [len(minibatch) for minibatch in load] == [3] * GENERATED_MINIBATCHES


def test_instances_to_learn_from_are_others(every: Case) -> None:
    measured, learned = (
        {format_graph(graph) for graph in every.workload.generate(20, every.signature, seed)}
        for seed in (0, LEARN_SEED)
    )
    assert not measured & learned


def test_a_file_without_instances(trees: Case, tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.write_text("")
    with pytest.raises(DataError, match=r"^0 instances in .*empty; expected 1 or more$"):
        load_minibatches(trees.workload, trees.signature, path, 2, None, 0)


def test_one_file_to_learn_and_to_measure(trees: Case, tmp_path: Path) -> None:
    path, link, other = tmp_path / "data", tmp_path / "link", tmp_path / "other"
    path.write_text("")
    other.write_text("")
    link.symlink_to(path)
    with pytest.raises(DataError, match="both to learn from and to measure on"):
        refuse_same_file(trees.workload, path, link)
    refuse_same_file(trees.workload, path, other)
    refuse_same_file(trees.workload, path, None)
    refuse_same_file(trees.workload, tmp_path / "missing", tmp_path / "missing")


def test_one_pair_of_files_to_learn_and_to_measure(tmp_path: Path) -> None:
    pairs = case("lstm-nmt").workload
    prefix, other = tmp_path / "a", tmp_path / "b"
    for path in (prefix, other):
        for suffix in ("en", "vi"):
            path.with_suffix(f".{suffix}").write_text("word\n")
    with pytest.raises(DataError, match="both to learn from and to measure on"):
        refuse_same_file(pairs, prefix, prefix)
    refuse_same_file(pairs, prefix, other)
    other.with_suffix(".vi").unlink()
    other.with_suffix(".vi").symlink_to(prefix.with_suffix(".vi"))
    with pytest.raises(DataError, match="both to learn from and to measure on"):
        refuse_same_file(pairs, prefix, other)


def test_what_a_file_leaves_open(tmp_path: Path) -> None:
    typed, spelled = case("treelstm-2type"), case("bilstm-tagger-char")
    tree, sentence, counted = tmp_path / "trees.txt", tmp_path / "sentence.txt", tmp_path / "counted.txt"
    tree.write_text("(2 " * 30 + "(2 w)" + " (2 w))" * 30 + "\n")
    sentence.write_text("a|O b|O\n" * 4)
    counted.write_text("a|O\n" * 5)
    coins = [
        load_minibatches(typed.workload, typed.signature, tree, 1, None, seed)[0][0].node_type.tolist()
        for seed in (0, 0, 1)
    ]
    assert coins[0] == coins[1] != coins[2]
    spell = spelled.signature.names.index("spell")
    for count_on, rare in ((None, 8), (counted, 4)):
        (instances,) = load_minibatches(spelled.workload, spelled.signature, sentence, 4, None, 0, count_on)
        assert sum(int(graph.type_count[spell]) for graph in instances) == rare


@pytest.mark.parametrize("torch", [True, False])
def test_peak(torch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch:
        monkeypatch.setattr(matmul_peak, "_torch_product", lambda size, dtype: None)
    assert 0 < matmul_peak.peak_gflops(size=64, repeats=1) < 1e5
