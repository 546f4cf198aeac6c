"""Tables of ``edbatch bench cpu`` in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from edbatch_tvm.atomic_file import write_text
from edbatch_tvm.models import WORKLOADS

BEGIN, END = "<!-- tables: written by edbatch bench cpu -->", "<!-- end of tables -->"

PEER_HEADS = {
    "hand": "PyTorch by hand",
    "compiled": "the same, torch.compile",
    "eager": "PyTorch, one node at a time",
    "dynet": "DyNet",
    "depth": "ours, depth",
    "agenda": "ours, agenda",
    "unbatched": "ours, unbatched",
}

Wanted = tuple[
    str, tuple[str, ...], tuple[tuple[int, int], ...], float, Callable[[dict[str, Any], dict[str, Any]], float | None]
]


def _ratio(peer: str) -> Callable[[dict[str, Any], dict[str, Any]], float | None]:
    return lambda row, figures: row["peers"].get(peer, {}).get("ratio")


def _efficiency(row: dict[str, Any], figures: dict[str, Any], rate: str = "peak_gflops") -> float:
    """GFLOP/s over the whole time, host included, relative to a rate of this machine."""
    share = row["seconds"]["execute"] / row["seconds"]["total"]
    return float(row["gflops"] * share / figures[rate])


MAIN = ("treelstm", "treegru", "bilstm-tagger", "lattice-lstm")

FLOORS: Sequence[Wanted] = (
    ("efficiency", MAIN, ((256, 256),), 0.70, _efficiency),
    ("efficiency", MAIN, ((128, 64),), 0.50, _efficiency),
    ("efficiency", MAIN, ((64, 64),), 0.30, _efficiency),
    ("× PyTorch by hand", ("treelstm",), ((128, 64),), 1.7, _ratio("hand")),
    ("× PyTorch by hand", ("lattice-lstm",), ((128, 64),), 2.0, _ratio("hand")),
    ("× PyTorch by hand", ("treelstm",), ((64, 64),), 3.0, _ratio("hand")),
    ("× PyTorch by hand", ("lattice-lstm",), ((64, 64),), 4.0, _ratio("hand")),
    ("× PyTorch one node at a time", WORKLOADS, ((128, 64),), 25.0, _ratio("eager")),
    ("× DyNet", WORKLOADS, ((64, 64),), 6.0, _ratio("dynet")),
    ("× DyNet", WORKLOADS, ((256, 64),), 2.5, _ratio("dynet")),
    ("× ours unbatched", WORKLOADS, ((128, 1),), 1.0, _ratio("unbatched")),
    ("× ours unbatched", WORKLOADS, ((128, 8),), 2.0, _ratio("unbatched")),
)
"""What the project asks of itself: figure, workloads, sizes (hidden, batch size), at least how much."""


def tables(figures: dict[str, Any]) -> str:
    """All tables of the figures of a run, with a line on the machine."""
    about = figures["machine"]
    versions = ", ".join(
        f"{name} {about[name]}" for name in ("python", "tvm", "numpy", "torch", "dynet") if name in about
    )
    rates = (
        f"matrix product {figures['peak_gflops']:.0f} GFLOP/s, fused multiply-adds {figures['fma_gflops']:.0f} GFLOP/s"
    )
    parts = [f"Machine: {about['cpu']}, {about['threads']} threads; {rates}. Versions: {versions}."]
    if figures["rows"]:
        parts += [_sizes(figures), _peers(figures), _floors(figures)]
    if figures["first_result"]:
        parts.append(_first_results(figures["first_result"]))
    return "\n\n".join(part for part in parts if part)


def write_tables(path: Path, text: str) -> None:
    """Write `text` to `path`: between the marks of a file that has them, else as the whole file."""
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    head, found, rest = old.partition(BEGIN)
    _, ended, tail = rest.partition(END)
    if found and ended:
        write_text(path, f"{head}{BEGIN}\n\n{text}\n\n{END}{tail}")
    else:
        write_text(path, f"{BEGIN}\n\n{text}\n\n{END}\n")


def _sizes(figures: dict[str, Any]) -> str:
    """A row a workload and hidden size, a column a batch size."""
    rows = figures["rows"]
    batch_sizes = sorted({row["batch_size"] for row in rows})
    cells: dict[tuple[str, int], dict[int, str]] = {}
    for row in rows:
        hand = row["peers"].get("hand", {}).get("ratio")
        product, fma = (_efficiency(row, figures, rate) for rate in ("peak_gflops", "fma_gflops"))
        host = 1 - row["seconds"]["execute"] / row["seconds"]["total"]
        text = f"{row['instances_per_second']:.0f} · {product:.2f} / {fma:.2f} · {host:.0%}"
        cells.setdefault((row["workload"], row["hidden"]), {})[row["batch_size"]] = text + (
            f" · {hand:.1f}×" if hand is not None else ""
        )
    head = ("workload", "H", *(f"B = {size}" for size in batch_sizes))
    lines = [
        (name, str(hidden), *(found.get(size, "") for size in batch_sizes)) for (name, hidden), found in cells.items()
    ]
    what = (
        "Instances per second · efficiency against the matrix product / against fused multiply-adds · share of the host"
        " · times as fast as PyTorch by hand"
    )
    return f"{what}\n\n{markdown_table(head, lines)}"


def _peers(figures: dict[str, Any]) -> str:
    """How many times longer each peer takes, where more than one ran."""
    shown = [row for row in figures["rows"] if set(row["peers"]) - {"hand"}]
    if not shown:
        return ""
    names = [name for name in PEER_HEADS if any(name in row["peers"] for row in shown)]
    lines, notes = [], []
    for row in shown:
        texts = []
        for name in names:
            peer = row["peers"].get(name, {})
            if "note" in peer:
                notes.append(f"{PEER_HEADS[name]} on {row['workload']}: {peer['note']}")
            texts.append(f"{peer['ratio']:.2f}×" + _form(name, peer) if "ratio" in peer else "")
        lines.append((row["workload"], str(row["hidden"]), str(row["batch_size"]), *texts))
    head = ("workload", "H", "B", *(PEER_HEADS[name] for name in names))
    text = f"How many times longer peers take than ours\n\n{markdown_table(head, lines)}"
    return text + "".join(f"\n\nNot run: {note}." for note in dict.fromkeys(notes))


def _form(name: str, peer: dict[str, Any]) -> str:
    return f" ({peer['form']})" if name == "hand" and peer["form"] != "by level" else ""


def _floors(figures: dict[str, Any]) -> str:
    """The targets, and what was measured."""
    lines = []
    for what, workloads, at, floor, figure in FLOORS:
        for row in figures["rows"]:
            if row["workload"] in workloads and (row["hidden"], row["batch_size"]) in at:
                found = figure(row, figures)
                if found is not None:
                    place = f"{row['workload']}, H = {row['hidden']}, B = {row['batch_size']}"
                    lines.append((what, place, f"{floor:g}", f"{found:.2f}", "yes" if found >= floor else "no"))
    return f"Targets\n\n{markdown_table(('figure', 'size', 'target', 'measured', 'met'), lines)}" if lines else ""


def _first_results(found: Iterable[dict[str, Any]]) -> str:
    """Seconds to the first result."""
    lines = []
    for one in found:
        empty, cached = one["empty_cache"], one["cached"]
        times = (f"{of['compile'] + of['first_run']:.2f}" for of in (cached, empty))
        lines.append(
            (one["workload"], str(one["hidden"]), *times, f"{cached['compile']:.2f}", f"{cached['import']:.2f}")
        )
    head = ("workload", "H", "to first result, s", "with an empty cache", "of which compile", "import before, s")
    return f"From cells to the first result in a fresh process, import not counted\n\n{markdown_table(head, lines)}"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of texts."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
