"""Drivers of models over lattices, programs, plans and graphs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.public_models.inputs import HIDDEN, WORDS, Calls, inside, lengths, rng, words
from benchmarks.public_models.measure import Case


def lattice(place: Path) -> Case:
    """The lattice LSTM of Chinese characters and the words they may form, in both directions, with its tagger."""
    inside(place / "model", place)
    from bilstm import BiLSTM

    sized = SimpleNamespace(size=lambda: WORDS)
    data = SimpleNamespace(
        use_bigram=False, HP_gpu=False, HP_use_char=False, HP_use_gaz=True, HP_batch_size=1, HP_hidden_dim=200,
        HP_dropout=0.5, word_emb_dim=50, biword_emb_dim=50, gaz_emb_dim=50, word_alphabet=sized, biword_alphabet=sized,
        gaz_alphabet=sized, pretrain_word_embedding=None, pretrain_biword_embedding=None, pretrain_gaz_embedding=None,
        HP_bilstm=True, HP_lstm_layer=1, label_alphabet_size=20, gaz_dropout=0.5, HP_fix_gaz_emb=False,
    )  # fmt: skip

    def gazetteer(length: int) -> list[Any]:
        found: list[Any] = []
        for start in range(length):
            spans = [int(one) for one in (2, 3, 4) if start + one <= length and rng.random() < 0.25]
            found.append([[int(rng.integers(WORDS)) for _ in spans], spans] if spans else [])
        return found

    def element(length: int) -> tuple[Any, ...]:
        sentence = words(length).unsqueeze(0)
        return ([gazetteer(length), True], sentence, sentence, torch.tensor([length]), None, None, None)

    model = BiLSTM(data)
    scores = Calls(model, lambda model, *arguments: model.get_output_score(*arguments))
    cells = ["rnn", "word_rnn"]
    cells = [f"model.{way}_lstm.{cell}" for way in ("forward", "backward") for cell in cells]
    return Case(scores, [element(length) for length in lengths(32)], [*cells, "model.hidden2tag"])


def tbd(place: Path) -> Case:
    """Transparency by design: a network of convolutions put together by a program (CLEVR)."""
    inside(place)
    from tbd.module_net import TbDNet

    names = ["<NULL>", "<START>", "<END>", "<UNK>", "unique", "scene", "intersect", "union", "count", "exist",
             "equal_color", "less_than", "query_color", "query_shape", "relate[left]", "relate[front]", "same_size",
             "filter_color[red]", "filter_color[blue]", "filter_shape[cube]", "filter_shape[sphere]"]  # fmt: skip
    of = {name: number for number, name in enumerate(names)}
    vocabulary = {"program_token_to_idx": of, "program_idx_to_token": dict(enumerate(names))}
    model = TbDNet(vocabulary, (256, 14, 14), module_dim=64, cls_proj_dim=128, fc_dim=256)

    def chain() -> list[str]:
        steps = []
        for _ in range(int(rng.integers(1, 4))):
            steps.append(str(rng.choice(["filter_color[red]", "filter_color[blue]", "filter_shape[cube]",
                                         "filter_shape[sphere]"])))  # fmt: skip
            if rng.random() < 0.5:
                steps += ["unique", str(rng.choice(["relate[left]", "relate[front]", "same_size"]))]
        return [*steps[::-1], "scene"]

    def program() -> list[str]:
        kind = rng.random()
        if kind < 0.5:
            return [str(rng.choice(["query_color", "query_shape", "exist", "count"])), *chain()]
        if kind < 0.8:
            return ["count", str(rng.choice(["intersect", "union"])), *chain(), *chain()]
        return ["equal_color", "query_color", *chain(), "query_color", *chain()]

    def element() -> tuple[Any, ...]:
        steps = [of[step] for step in ["<START>", *program(), "<END>"]]
        return torch.randn(1, 256, 14, 14), torch.tensor([steps])

    elements = [element() for _ in range(16)]
    cells = ["stem", "classifier", *(name for name in names[6:])]
    features = torch.cat([one for one, _ in elements])
    most = max(one.shape[1] for _, one in elements)
    programs = torch.cat([torch.nn.functional.pad(one, (0, most - one.shape[1])) for _, one in elements])
    return Case(model, elements, cells, lambda: model(features, programs))


def qppnet(place: Path) -> Case:
    """QPPNet: a neural unit for every operator of a query plan, beside the grouping of its authors by template."""
    inside(place)
    from model_arch import QPPNet

    options = SimpleNamespace(
        save_dir="/tmp/qppnet", test_time=False, batch_size=64, dataset="PSQLTPCH", SGD=True, lr=1e-3, scheduler=False,
        start_epoch=0,
    )  # fmt: skip
    network = QPPNet(options)
    inputs = {name: size - 32 * (2 if "Join" in name or "Loop" in name else 0 if "Scan" in name else 1)
              for name, size in network.dim_dict.items()}  # fmt: skip
    dtype = str(torch.get_default_dtype()).removeprefix("torch.")
    inputs |= {"Subquery Scan": 3, "Bitmap Heap Scan": inputs["Bitmap Heap Scan"] - 32}

    def template(depth: int) -> Any:
        if depth == 0 or rng.random() < 0.2:
            return str(rng.choice(["Seq Scan", "Index Scan", "Index Only Scan"])), []
        if rng.random() < 0.5:
            return str(rng.choice(["Hash Join", "Merge Join", "Nested Loop"])), [template(depth - 1) for _ in range(2)]
        return str(rng.choice(["Sort", "Hash", "Aggregate", "Limit", "Materialize"])), [template(depth - 1)]

    def plans(one: Any, count: int) -> dict[str, Any]:
        name, children = one
        return {
            "node_type": name, "real_node_type": name, "subbatch_size": count, "is_subplan": False,
            "feat_vec": rng.normal(size=(count, inputs[name])).astype(dtype),
            "total_time": rng.random(count).astype(dtype),
            "children_plan": [plans(child, count) for child in children],
        }  # fmt: skip

    def single(plan: dict[str, Any], number: int) -> dict[str, Any]:
        part = {name: plan[name][number : number + 1] for name in ("feat_vec", "total_time")}
        children = [single(child, number) for child in plan["children_plan"]]
        return {**plan, **part, "children_plan": children, "subbatch_size": 1}

    groups = [plans(template(5), 8) for _ in range(8)]
    elements = [(single(group, number),) for group in groups for number in range(8)]

    class Plans(torch.nn.Module):
        """QPPNet is no module; its units are."""

        def __init__(self) -> None:
            super().__init__()
            self.units = torch.nn.ModuleDict({name.replace(" ", "_"): unit for name, unit in network.units.items()})

        def forward(self, plan: dict[str, Any]) -> Any:
            own = copy.copy(network)
            own.units = {name: self.units[name.replace(" ", "_")] for name in network.units}
            return own._forward_oneQ_batch(plan)

    model = Plans()
    cells = [f"units.{name}" for name in model.units]
    return Case(model, elements, cells, lambda: [network._forward_oneQ_batch(group) for group in groups])


def jtnn(place: Path) -> Case:
    """The encoder of the junction tree VAE: messages along the junction tree of a molecule, beside its own batching."""
    inside(place / "jtnn")
    from jtnn_enc import GRU, JTNNEncoder

    def tree(length: int) -> Any:
        nodes = [SimpleNamespace(idx=number, wid=int(rng.integers(WORDS)), neighbors=[]) for number in range(length)]
        for number in range(1, length):
            parent = nodes[int(rng.choice([one for one in range(number) if len(nodes[one].neighbors) < 7]))]
            parent.neighbors.append(nodes[number])
            nodes[number].neighbors.append(parent)
        return nodes[0]

    roots = [tree(length) for length in lengths(32, 5, 20)]
    model = JTNNEncoder(SimpleNamespace(size=lambda: WORDS), HIDDEN)
    elements = [([root],) for root in roots]

    def by_hand() -> Any:
        # A batch numbers its nodes throughout.
        number = 0
        for root in roots:
            stack, seen = [root], {id(root)}
            while stack:
                node = stack.pop()
                node.idx = number
                number += 1
                new = [other for other in node.neighbors if id(other) not in seen]
                seen.update(map(id, new))
                stack += new
        return model(roots)

    return Case(model, elements, ["embedding", GRU, "W"], by_hand)


def dvae(name: str) -> Callable[[Path], Case]:
    """The encoder of D-VAE over computation graphs (ENAS), whose states are attributes of igraph's vertices."""

    def driver(place: Path) -> Case:
        inside(place)
        import igraph
        import models

        most, kinds = 10, 8
        model = getattr(models, name)(most, kinds, 0, 1, hs=HIDDEN, nz=56, bidirectional=True)

        def graph(length: int) -> Any:
            one = igraph.Graph(directed=True)
            for vertex in range(length):
                kind = 0 if vertex == 0 else 1 if vertex == length - 1 else int(rng.integers(2, kinds))
                one.add_vertex(type=kind)
                for other in range(vertex):
                    if other == vertex - 1 or rng.random() < 0.3:
                        one.add_edge(other, vertex)
            return one

        graphs = [graph(length) for length in lengths(32, 5, most)]
        encode = Calls(model, lambda model, graph: model.encode(graph))
        cells = ["grue_forward", "grue_backward", "_gated", "hg_unify", "fc1", "fc2"]
        cells = [f"model.{cell}" for cell in cells if hasattr(model, cell)]
        return Case(encode, [(one,) for one in graphs], cells, lambda: model.encode(graphs))

    return driver
