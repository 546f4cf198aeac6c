"""Functions of rows, most of them of ``torch.nn.functional``: what each is compiled to, as docs/operators.md shows.

python -m benchmarks.row_functions            # the table
python -m benchmarks.row_functions --write    # into the page
python -m benchmarks.row_functions --speed    # each beside PyTorch, one call over all rows
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

PAGE = Path(__file__).resolve().parents[1] / "docs" / "operators.md"
BEGIN = "<!-- table: python -m benchmarks.row_functions --write -->"

WIDTH = 24

Function = Callable[[Any, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Row(nn.Module):
    """A function of rows ``x``, ``y`` and an index ``i``, alone or of the result of a linear layer."""

    def __init__(self, function: Function, width: int = WIDTH, linear: bool = False) -> None:
        super().__init__()
        self.function = function
        self.linear = nn.Linear(width, width) if linear else nn.Identity()
        self.weight, self.bias = nn.Parameter(torch.rand(width)), nn.Parameter(torch.rand(width))
        self.table = nn.Parameter(torch.rand(width, width))
        self.bilinear = nn.Bilinear(width, width, 3)

    def forward(self, x: torch.Tensor, y: torch.Tensor, i: torch.Tensor) -> torch.Tensor:
        return self.function(self, self.linear(x), y, i)


def _plain(name: str) -> Function:
    return lambda m, x, y, i: getattr(F, name)(x)


ACTIVATIONS = (
    *("relu", "relu6", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus", "softsign", "tanhshrink", "tanh"),
    *("leaky_relu", "hardtanh", "hardswish", "hardsigmoid", "hardshrink", "softshrink", "logsigmoid", "sigmoid"),
)

FUNCTIONS: dict[str, Function] = {
    **{name: _plain(name) for name in ACTIVATIONS},
    "gelu, tanh": lambda m, x, y, i: F.gelu(x, approximate="tanh"),
    "threshold": lambda m, x, y, i: F.threshold(x, 0.1, 20.0),
    "prelu": lambda m, x, y, i: F.prelu(x, m.bias[:1]),
    "glu": lambda m, x, y, i: F.glu(x, -1),
    "dropout in evaluation": lambda m, x, y, i: F.dropout(x, 0.5, training=False) * 2,
    "softmax": lambda m, x, y, i: F.softmax(x, -1),
    "softmin": lambda m, x, y, i: F.softmin(x, -1),
    "log_softmax": lambda m, x, y, i: F.log_softmax(x, -1),
    "logsumexp": lambda m, x, y, i: torch.logsumexp(x, -1),
    "layer_norm": lambda m, x, y, i: F.layer_norm(x, (x.shape[-1],), m.weight, m.bias),
    "rms_norm": lambda m, x, y, i: F.rms_norm(x, (x.shape[-1],), m.weight),
    "normalize": lambda m, x, y, i: F.normalize(x, dim=-1),
    "cosine_similarity": lambda m, x, y, i: F.cosine_similarity(x, y, dim=-1),
    "pairwise_distance": lambda m, x, y, i: F.pairwise_distance(x, y),
    "dot product": lambda m, x, y, i: (x * y).sum(-1),
    "sum": lambda m, x, y, i: x.sum(-1),
    "mean": lambda m, x, y, i: x.mean(-1),
    "amax": lambda m, x, y, i: x.amax(-1),
    "amin": lambda m, x, y, i: x.amin(-1),
    "prod": lambda m, x, y, i: x.prod(-1),
    "norm": lambda m, x, y, i: torch.linalg.vector_norm(x, dim=-1),
    "argmax": lambda m, x, y, i: x.argmax(-1).to(x.dtype),
    "argmin": lambda m, x, y, i: x.argmin(-1).to(x.dtype),
    "cumsum": lambda m, x, y, i: x.cumsum(-1),
    "sort": lambda m, x, y, i: x.sort(-1)[0],
    "topk": lambda m, x, y, i: x.topk(3, -1)[0],
    "linear": lambda m, x, y, i: F.linear(x, m.table),
    "bilinear": lambda m, x, y, i: m.bilinear(x, y),
    "embedding": lambda m, x, y, i: F.embedding(i, m.table) * x,
    "one_hot": lambda m, x, y, i: F.one_hot(i, x.shape[-1]) * x,
    "where": lambda m, x, y, i: torch.where(x > y, x, y * 2),
    "masked_fill": lambda m, x, y, i: x.masked_fill(y > 0, -1.0),
    "clamp": lambda m, x, y, i: x.clamp(-0.5, 0.7),
    "maximum": lambda m, x, y, i: torch.maximum(x, y),
    "pow 3": lambda m, x, y, i: x**3,
    "pow 0.7": lambda m, x, y, i: x.abs() ** 0.7,
    "comparison": lambda m, x, y, i: (x > y).to(x.dtype),
    "slice": lambda m, x, y, i: x[..., 3:17],
    "cat": lambda m, x, y, i: torch.cat([x, y], -1),
    "flip": lambda m, x, y, i: x.flip(-1),
    "roll": lambda m, x, y, i: x.roll(3, -1),
    "gather by an attribute": lambda m, x, y, i: torch.index_select(x, -1, i.reshape(1)),
    "pad": lambda m, x, y, i: F.pad(x, (2, 3)),
    "outer product": lambda m, x, y, i: x.unsqueeze(-1) * y.unsqueeze(-2),
    "mse_loss": lambda m, x, y, i: F.mse_loss(x, y),
    "l1_loss": lambda m, x, y, i: F.l1_loss(x, y),
    "smooth_l1_loss": lambda m, x, y, i: F.smooth_l1_loss(x, y),
    "huber_loss": lambda m, x, y, i: F.huber_loss(x, y),
    "binary_cross_entropy_with_logits": lambda m, x, y, i: F.binary_cross_entropy_with_logits(x, y),
    "kl_div": lambda m, x, y, i: F.kl_div(x, y, reduction="sum"),
    "cross_entropy": lambda m, x, y, i: F.cross_entropy(x, i),
    "nll_loss": lambda m, x, y, i: F.nll_loss(x, i),
}


def compiled_to(function: Function, linear: bool) -> str:
    """``stage``, ``2 stages``, ``general`` or ``refused``, the last two with the reason."""
    import edbatch_tvm as eb
    from edbatch_tvm.errors import EdbatchError
    from relay_ext.block_reader import NotReadable
    from relay_ext.pipeline import cell_passes, run_passes
    from relay_ext.signature import signature_of
    from relay_ext.stage_cells import stages_of

    torch.manual_seed(0)
    example = (torch.rand(WIDTH), torch.rand(WIDTH), torch.tensor(3))
    try:
        mod, _ = eb.cells_from_torch({"cell": Row(function, linear=linear).eval()}, {"cell": example})
        cell = run_passes(mod, cell_passes())["cell"]
    except EdbatchError as error:
        return f"refused: {error}"
    try:
        count = len(stages_of(cell, signature_of(mod)))
    except NotReadable as reason:
        return f"general: {reason}"
    return "stage" if count == 1 else f"{count} stages"


def table() -> str:
    """The functions and what they are compiled to, as Markdown."""
    lines = ["| function | of a row | of the result of a linear layer |", "|---|---|---|"]
    for name, function in FUNCTIONS.items():
        after = compiled_to(function, linear=True)
        after = "epilogue" if after == "stage" else after
        lines.append(
            "| " + " | ".join(_cell(text) for text in (name, compiled_to(function, linear=False), after)) + " |"
        )
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    text = text.replace("|", "\\|").replace("\n", " ")
    return text if len(text) <= 90 else text[:87] + "..."


def page_with(text: str) -> str:
    """The page with `text` for its table."""
    before, _, after = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, rest = after.lstrip("\n").partition("\n\n")
    return f"{before}{BEGIN}\n\n{text}\n{rest}".rstrip("\n") + "\n"


def speed(name: str, rows: int, width: int, repeat: int, target: Any) -> tuple[float, float, str]:
    """Seconds of a batch and of PyTorch in one call, medians in turns; and the path of the cell."""
    import edbatch_tvm as eb
    from benchmarks.operator_speed import in_turns

    module = Row(FUNCTIONS[name], width).eval().requires_grad_(False)
    x, y, i = torch.randn(rows, width), torch.randn(rows, width), torch.randint(0, WIDTH, (rows,))
    model = eb.compile(*eb.cells_from_torch({"cell": module}, {"cell": (x[0], y[0], i[0])}), target=target)
    builder = model.builder()
    given = zip(x.numpy(), y.numpy(), i.numpy(), strict=True)
    instances = [builder.finish(builder.call("cell", a, b, i=int(c))) for a, b, c in given]
    expected = torch.vmap(module)(x, y, i)
    batched: Callable[..., torch.Tensor] = torch.vmap(module)
    try:
        direct = module(x, y, i)
        if direct.shape == expected.shape and torch.equal(direct, expected):
            batched = module
    except (RuntimeError, IndexError):
        pass  # a function of one row: vmap makes it one of many
    ours, theirs = in_turns(model, instances, lambda: batched(x, y, i), repeat)
    return ours, theirs, model.paths["cell"]


def main() -> None:
    """Print the table, write it into the page, or measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--write", action="store_true", help="put the table into docs/operators.md")
    parser.add_argument("--speed", action="store_true", help="measure each function that is a stage")
    parser.add_argument("--only", nargs="+", help="names of functions")
    parser.add_argument("--hidden", type=int, nargs="+", default=[128])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--cpu", help="compile for this CPU: haswell has AVX2 and no AVX-512")
    arguments = parser.parse_args()
    if not arguments.speed:
        text = table()
        if arguments.write:
            PAGE.write_text(page_with(text), encoding="utf-8")
        print(text)
        return
    import edbatch_tvm as eb
    from benchmarks.operator_speed import row_text

    eb.set_num_threads(1)
    torch.set_num_threads(1)
    target = {"kind": "llvm", "mcpu": arguments.cpu} if arguments.cpu else "llvm"
    for width in arguments.hidden:
        for name in arguments.only or FUNCTIONS:
            if compiled_to(FUNCTIONS[name], linear=False).startswith("refused"):
                continue
            ours, theirs, path = speed(name, arguments.rows, width, arguments.repeat, target)
            print(row_text(name, width, ours, theirs, path), flush=True)


if __name__ == "__main__":
    main()
