"""A Transformer encoder over sequences of many lengths, as ``eb.autobatch`` runs it: ``python -m benchmarks.encoder``.

Beside it the same model one sequence at a time, and as one padded minibatch with a mask of the padding, as such models
are batched by hand. Lengths are spread evenly from 1 to the longest. All run in turns, for inference; times are medians
in milliseconds, and results are compared in the same run. The first call compiles; later ones meet new lengths.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any

import torch
from torch import nn

import edbatch_tvm as eb

WORDS, SCORES = 1000, 5


class Model(nn.Module):
    """The mean of what the encoder makes of words, scored."""

    def __init__(self, hidden: int, heads: int, layers: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(hidden, heads, 2 * hidden, dropout=0.0, batch_first=True)
        self.words = nn.Embedding(WORDS, hidden)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.score = nn.Linear(hidden, SCORES)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        """The scores of one sequence."""
        return self.score(self.encoder(self.words(words)[None])[0].mean(0))

    def padded(self, sequences: list[torch.Tensor]) -> torch.Tensor:
        """The scores of a minibatch, with padding."""
        words = nn.utils.rnn.pad_sequence(sequences, batch_first=True)
        lengths = torch.tensor([len(one) for one in sequences])
        padding = torch.arange(words.shape[1]) >= lengths[:, None]
        found = self.encoder(self.words(words), src_key_padding_mask=padding)
        return self.score(found.masked_fill(padding[..., None], 0).sum(1) / lengths[:, None])


def sequences_of(longest: int, count: int) -> list[torch.Tensor]:
    """Random words, in lengths from 1 to `longest`."""
    return [torch.randint(0, WORDS, (max(1, longest * (n + 1) // count),)) for n in range(count)]


def milliseconds(run: Callable[[Any], Any], given: list[torch.Tensor]) -> float:
    """Of one run."""
    begin = perf_counter()
    run(given)
    return 1e3 * (perf_counter() - begin)


def main() -> None:
    """Print a line for each longest length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--longest", type=int, nargs="+", default=[10, 30, 100])
    parser.add_argument("--count", type=int, default=64, help="sequences of a minibatch")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.manual_seed(0)
    model = Model(options.hidden, options.heads, options.layers).eval()
    fast = eb.autobatch(model, cells=["words", "encoder", "score"])
    with torch.no_grad():
        first = milliseconds(fast, sequences_of(4, 8))
        print(f"hidden {options.hidden}, {options.count} sequences, first call {first / 1e3:.1f} s")
        names = ["longest", "eager", "padded", "batched", "faster", "than_padded", "batches", "error"]
        print("".join(f"{name:>12}" for name in names))
        runs = (lambda given: torch.stack([model(one) for one in given])), model.padded, fast
        for longest in options.longest:
            given = sequences_of(longest, options.count)
            expected, found = runs[0](given), torch.stack(fast(given))
            error = float((found - expected).abs().max() / expected.abs().max())
            times = [[milliseconds(run, given) for run in runs] for _ in range(options.rounds)]
            eager, padded, batched = (statistics.median(column) for column in zip(*times, strict=True))
            figures = eager, padded, batched, eager / batched, padded / batched
            print(f"{longest:12}{''.join(f'{one:12.2f}' for one in figures)}{fast.batches:12}{error:12.1e}")


if __name__ == "__main__":
    main()
