"""The public models by name: repository and driver."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.public_models import graphs, parsers, trees
from benchmarks.public_models.measure import Case
from benchmarks.public_models.repositories import CUDA, PRINT, RANGE, SET, SPLIT, VOLATILE, Repository

TREELSTM = Repository("dasguptar/treelstm.pytorch", "228a314")
SENTIMENT = Repository("ttpro1995/TreeLSTMSentiment", "c61f73e")
SPINN = Repository(
    "nearai/torchfold",
    "8802cfe",
    (
        ("torchfold/torchfold.py", r"torch\.tensor\._TensorBase", "torch.Tensor"),
        ("torchfold/torchfold.py", *VOLATILE),
        # The first states are memory as it was found.
        ("examples/snli/spinn-example.py", r"torch\.FloatTensor\(", "torch.zeros("),
    ),
)
LATTICE = Repository(
    "jiesutd/LatticeLSTM",
    "24d17f4",
    tuple((f"model/{name}.py", *rule) for name in ("latticelstm", "bilstm", "charbilstm", "charcnn")
          for rule in (PRINT, VOLATILE, SPLIT, SET)),
)  # fmt: skip
SATA = Repository(
    "galsang/SATA-Tree-LSTM",
    "fc566bf",
    (("modules/encoder.py", r"torch\.device\(torch\.cuda\.current_device\(\)\)", "x.device"),),
)
LATENT = Repository("facebookresearch/latent-treelstm", "8875ef8")
GUMBEL = Repository(
    "jihunchoi/unsupervised-treelstm",
    "47623f5",
    (
        # Indices of the dtype of what they index.
        ("model/basic.py", r"reversed_indices\.to\(inputs\)", "reversed_indices.to(inputs.device)"),
        # A sum kept the dimension.
        (
            "model/treelstm.py",
            r"((?:select_mask_expand|att_weights_expand) \* (?:new_h|nodes)\)\.sum\(1)\)$",
            r"\1, keepdim=True)",
        ),
    ),
)
GRASS = Repository(
    "kevin-kaixu/grass_pytorch",
    "1d8dc6d",
    (
        ("grassmodel.py", *CUDA),
        ("grassmodel.py", r"return torch\.cat\(\[self\.(mse|cre)Loss", r"return torch.stack([self.\1Loss"),
        ("grassmodel.py", r"unsqueeze\(0\), gt\)", "unsqueeze(0), gt.view(1))"),
        ("torchfoldext.py", *VOLATILE),
    ),
)
RNNG = Repository(
    "kmkurn/pytorch-rnng",
    "9861a9b",
    (
        ("src/rnng/models.py", *VOLATILE),
        ("src/rnng/models.py", r"\.data\[0\]", ".item()"),
    ),
)
TBD = Repository("davidmascharka/tbd-nets", "9de0235", (("tbd/modules.py", r"\] / size\)", "] // size)"),))
QPPNET = Repository("rabbit721/QPPNet", "9216ba8")
JTNN = Repository(
    "wengong-jin/icml18-jtnn",
    "d4c425a",
    tuple((f"jtnn/{name}.py", *rule) for name in ("jtnn_enc", "nnutils", "mol_tree", "chemutils")
          for rule in (PRINT, CUDA, RANGE)),
)  # fmt: skip
STACK_NER = Repository(
    "tianlinyang/stack-lstm-ner",
    "09bb77a",
    (
        ("model/stack_lstm.py", r"\[1\]\[0\]\.data\.numpy\(\)\[0\]", "[1].item()"),
        ("model/stack_lstm.py", r"self\.idx2word\[tok\]", "self.idx2word[int(tok)]"),
        ("model/stack_lstm.py", r"\[actions\.data\[action_count\]\]", "[int(actions.data[action_count])]"),
        ("model/stack_lstm.py", r"torch\.cat\(losses\)", "torch.stack(losses)"),
    ),
)
DVAE = Repository("muhanzhang/D-VAE", "3569a4a")

MODELS: dict[str, tuple[Repository, Callable[[Path], Case]]] = {
    "treelstm.pytorch": (TREELSTM, trees.treelstm),
    "TreeLSTMSentiment, constituency": (SENTIMENT, trees.sentiment("constituency")),
    "TreeLSTMSentiment, dependency": (SENTIMENT, trees.sentiment("dependency")),
    "torchfold SPINN": (SPINN, trees.spinn),
    "GRASS encoder": (GRASS, trees.grass("encoder")),
    "GRASS decoder": (GRASS, trees.grass("decoder")),
    "LatticeLSTM": (LATTICE, graphs.lattice),
    "SATA Tree-LSTM": (SATA, parsers.sata),
    "latent-treelstm": (LATENT, parsers.latent),
    "Gumbel Tree-LSTM": (GUMBEL, parsers.gumbel),
    "RNNG": (RNNG, parsers.rnng),
    "tbd-nets": (TBD, graphs.tbd),
    "QPPNet": (QPPNET, graphs.qppnet),
    "JTNN encoder": (JTNN, graphs.jtnn),
    "stack-lstm-ner": (STACK_NER, parsers.stack_ner),
    "D-VAE": (DVAE, graphs.dvae("DVAE")),
    "D-VAE, BN": (DVAE, graphs.dvae("DVAE_BN")),
}
