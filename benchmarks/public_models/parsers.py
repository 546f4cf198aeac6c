"""Drivers of models that build a tree, or follow actions, over a sentence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.public_models.inputs import HIDDEN, WORDS, Calls, binary, inside, lengths, rng, words
from benchmarks.public_models.measure import Case, doubled


def sata(place: Path) -> Case:
    """The tag-guided TreeLSTM of SATA: a stack machine that its authors batch themselves."""
    inside(place)
    from modules.classifier import Classifier

    args = SimpleNamespace(
        use_leafLSTM=2, hidden_size=HIDDEN, word_dim=100, dataset="SST2", tag_emb_dim=50, word_tag_vocab_size=40,
        cons_tag_vocab_size=30, freeze_word_emb=True, output_mlp_size=HIDDEN, class_size=2, mlp_dropout=0.1,
        emb_dropout=0.1,
    )  # fmt: skip
    model = Classifier(args, torch.randn(WORDS, 100)).eval()

    def actions(one: Any) -> list[int]:
        return [1] if isinstance(one, int) else [*actions(one[0]), *actions(one[1]), 2]

    def element(length: int) -> Any:
        moves = torch.tensor([actions(binary(0, length))])
        tags = torch.from_numpy(rng.integers(1, 30, (1, length)))
        cons = torch.from_numpy(rng.integers(1, 30, (1, 2 * length - 1)))
        return SimpleNamespace(
            text=(words(length)[None], torch.tensor([length])), transitions=(moves, torch.tensor([moves.shape[1]])),
            word_tag=(tags, None), cons_tag=(cons, None),
        )  # fmt: skip

    elements = [element(length) for length in lengths(32)]
    cells = ["encoder.word_leaf", "encoder.word_leaf_bw", "encoder.word_tree", "encoder.tag_leaf", "encoder.tag_tree",
             "fc1", "fc2"]  # fmt: skip

    def padded(tensors: list[torch.Tensor]) -> torch.Tensor:
        most = max(one.shape[1] for one in tensors)
        return torch.cat([torch.nn.functional.pad(one, (0, most - one.shape[1])) for one in tensors])

    together = SimpleNamespace(
        text=(padded([one.text[0] for one in elements]), torch.cat([one.text[1] for one in elements])),
        transitions=(padded([one.transitions[0] for one in elements]),
                     torch.cat([one.transitions[1] for one in elements])),
        word_tag=(padded([one.word_tag[0] for one in elements]), None),
        cons_tag=(padded([one.cons_tag[0] for one in elements]), None),
    )  # fmt: skip
    return Case(model, [(one,) for one in elements], cells, lambda: model(together))


def latent(place: Path) -> Case:
    """The TreeLSTM over given trees of ListOps, layer by layer, with masks."""
    inside(place)
    from listops.models.IdealTreeModel import IdealTreeModel

    model = IdealTreeModel(20, HIDDEN, HIDDEN, 10, "bi_lstm_transformation", HIDDEN)

    def element(length: int) -> tuple[Any, ...]:
        tree = [
            torch.nn.functional.one_hot(torch.from_numpy(rng.integers(0, size, 1)), size).float()
            for size in range(length - 1, 0, -1)
        ]
        sentence = torch.from_numpy(rng.integers(0, 20, (1, length)))
        return sentence, tree, torch.ones(1, length), torch.from_numpy(rng.integers(0, 10, 1))

    elements = [element(length) for length in lengths(32)]
    cells = ["tree_lstm_rnn.lstm_f.lstm", "tree_lstm_rnn.lstm_b.lstm", "tree_lstm_rnn.tree_lstm_cell", "linear"]
    return Case(model, elements, cells, in_double=doubled)


def gumbel(place: Path) -> Case:
    """The TreeLSTM that chooses its tree itself (Gumbel Tree-LSTM), at test time, with its classifier."""
    inside(place)
    from sst.model import SSTModel

    model = SSTModel(5, WORDS, 100, HIDDEN, HIDDEN, 1, True, False, True, True, 0.1).eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Embedding):
            torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(model.encoder.comp_query)
    elements = [(words(length)[None], torch.tensor([length])) for length in lengths(32)]
    cells = ["encoder.leaf_rnn_cell", "encoder.treelstm_layer", "classifier"]
    ordered = sorted(elements, key=lambda one: -one[0].shape[1])
    most = ordered[0][0].shape[1]
    sentences = torch.cat([torch.nn.functional.pad(one, (0, most - one.shape[1])) for one, _ in ordered])
    size = torch.cat([one for _, one in ordered])
    return Case(model, elements, cells, lambda: model(sentences, size))


def rnng(place: Path) -> Case:
    """A recurrent neural network grammar: three stack LSTMs, whose states are lists of the model."""
    inside(place / "src")
    from rnng.models import DiscRNNG

    nonterminals = 20
    model = DiscRNNG(WORDS, 40, nonterminals, input_size=HIDDEN, hidden_size=HIDDEN)

    def actions(one: Any, depth: int = 0) -> list[int]:
        if isinstance(one, int):
            return [1] if depth else [2 + int(rng.integers(nonterminals)), 1, 0]
        inner = [*actions(one[0], depth + 1), *actions(one[1], depth + 1)]
        return [2 + int(rng.integers(nonterminals)), *inner, 0] if depth == 0 or rng.random() < 0.5 else inner

    def element(length: int) -> tuple[Any, ...]:
        tags = torch.from_numpy(rng.integers(0, 40, length))
        return words(length), tags, torch.tensor(actions(binary(0, length)))

    elements = [element(length) for length in lengths(16, 5, 20)]
    cells = ["word2encoder", "nt2encoder", "action2encoder", "encoders2summary", "summary2actionlogprobs",
             "fwdbwd2composed"]  # fmt: skip
    return Case(model, elements, cells)


def stack_ner(place: Path) -> Case:
    """Named entities by transitions over stack LSTMs; each is chosen by the scores of the last state."""
    inside(place)
    from model.stack_lstm import TransitionNER

    labels = ["PER", "LOC", "ORG", "MISC"]
    actions = {name: number for number, name in enumerate(["SHIFT", "OUT", *(f"REDUCE-{one}" for one in labels)])}
    letters = {chr(97 + one): one for one in range(26)}
    vocabulary = {"".join(rng.choice(list(letters), int(rng.integers(2, 9)))): word for word in range(WORDS)}
    of = dict(zip(vocabulary, range(len(vocabulary)), strict=True))
    model = TransitionNER(
        "predict", actions, of, {one: number for number, one in enumerate(labels)}, letters,
        {f"REDUCE-{one}": one for one in labels}, len(of), len(actions), 100, 20, 25, HIDDEN, 25, 1, 0.5, True, "lstm",
        -1,
    )  # fmt: skip
    model.rand_init(init_word_embedding=True)
    dtype = torch.get_default_dtype()  # these are of float32 and no parameters
    model.lstm_initial = tuple(state.detach().to(dtype) for state in model.lstm_initial)
    sentences = [torch.from_numpy(rng.integers(2, len(of), length))[None] for length in lengths(16, 5, 20)]

    def labelled(words: int) -> torch.Tensor:
        moves: list[int] = []
        while words:
            span = int(rng.integers(0, min(3, words) + 1))
            name = f"REDUCE-{rng.choice(labels)}" if span else "OUT"
            moves += [actions["SHIFT"]] * span + [actions[name]]
            words -= max(span, 1)
        return torch.tensor([moves])

    cells = ["buffer_lstm", "stack_lstm", "action_lstm", "output_lstm", "entity_forward_lstm", "entity_backward_lstm",
             "lstms_output_2_softmax", "output_2_act", "entity_2_output"]  # fmt: skip
    to_train = [(one, labelled(one.shape[1])) for one in sentences]
    # A tuple would be the first argument: the others have defaults.
    calls = Calls(model, lambda model, *arguments: model(*arguments))
    return Case(calls, [(one,) for one in sentences], [f"model.{cell}" for cell in cells], to_train=to_train)
