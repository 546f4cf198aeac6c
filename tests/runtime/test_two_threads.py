"""Two threads and two models at once, with the policy changed meanwhile: every result is the reference's."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

import edbatch_tvm as eb
from edbatch_tvm.checking.reference import run_reference
from edbatch_tvm.graph import InstanceGraph
from edbatch_tvm.models import get_workload
from edbatch_tvm.runtime.arenas import ArenaSet

POLICIES = ("depth", "agenda", "lookahead", "auto")


def reference(name: str, graph: InstanceGraph, hidden: int) -> list[np.ndarray]:
    workload = get_workload(name)
    values = run_reference(graph, workload.reference, workload.weights(hidden))
    return [values[value // graph.stride][value % graph.stride] for value in graph.outputs.tolist()]


def test_threads_models_and_policies() -> None:
    names = ("treelstm", "lattice-gru")
    models, pools, meant = {}, {}, {}
    for name in names:
        workload = get_workload(name)
        models[name] = eb.compile(workload.cells(16), workload.weights(16))
        pools[name] = workload.generate(8, models[name].cells)
        meant[name] = [reference(name, graph, 16) for graph in pools[name]]
    wrong: list[object] = []

    def run(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for turn in range(12):
            name = names[(turn + seed) % 2]
            chosen = rng.choice(8, rng.integers(1, 6)).tolist()
            try:
                if turn % 3 == 0:
                    models[name].policy = POLICIES[rng.integers(len(POLICIES))]
                result = models[name]([pools[name][number] for number in chosen])
                for position, number in enumerate(chosen):
                    found = result[position]
                    found = found if isinstance(found, list) else [found]
                    for mine, expected in zip(found, meant[name][number], strict=True):
                        np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-5)
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_arenas_given_back_by_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    """The collector may run while a thread holds the lock of the pool, and give arenas back to this pool."""
    workload = get_workload("treelstm")
    model = eb.compile(workload.cells(8), workload.weights(8))
    pool = workload.generate(6, model.cells)
    fits = ArenaSet.fits

    def collecting(self: ArenaSet, rows: tuple[int, ...]) -> bool:
        gc.collect()
        return fits(self, rows)

    monkeypatch.setattr(ArenaSet, "fits", collecting)

    def run() -> None:
        model(pool[:1])
        for number in range(4):
            ring: list[object] = list(model(pool[number : number + 2]))
            ring.append(ring)

    gc.disable()
    try:
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(timeout=60)
        assert not thread.is_alive()
    finally:
        gc.enable()
