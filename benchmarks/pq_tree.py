"""Time of PQ-tree reductions against the size of the constraints: CSV, and a plot as SVG.

    python benchmarks/pq_tree.py [--output FOLDER]

Constraints are intervals, shuffled, of a hidden order of the leaves; their total size is ten times the leaves. The
largest case has 100,000 leaves and constraints of total size 1,000,000. A line of slope 1 in the plot is linear time.
"""

from __future__ import annotations

import argparse
import csv
import gc
import random
from pathlib import Path
from time import perf_counter

from edbatch_tvm.memory import PQTree

LEAVES = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)
SIZES = (2, 3, 5, 10, 30, 100)


def constraints(leaves: int, total: int, seed: int) -> list[list[int]]:
    """Intervals of a hidden order, of at least `total` members together."""
    rng = random.Random(seed)
    hidden = rng.sample(range(leaves), leaves)
    found, size = [], 0
    while size < total:
        length = min(rng.choice(SIZES), total - size + 1)
        at = rng.randrange(leaves - length + 1)
        found.append(rng.sample(hidden[at : at + length], length))
        size += length
    return found


def seconds(leaves: int, sets: list[list[int]]) -> float:
    """Time of all reductions; the tree is checked."""
    tree = PQTree(leaves)
    gc.collect()
    begin = perf_counter()
    done = [tree.reduce(one) for one in sets]
    time = perf_counter() - begin
    place = {leaf: position for position, leaf in enumerate(tree.frontier())}
    assert all(done)
    assert all(max(p) - min(p) == len(p) - 1 for p in ([place[leaf] for leaf in one] for one in sets))
    return time


def plot(rows: list[tuple[int, int, float]]) -> str:
    """Time against total size, both logarithmic, as SVG."""
    from math import log10

    width, height, margin = 480, 320, 50
    x0, x1 = log10(rows[0][1]) - 0.2, log10(rows[-1][1]) + 0.2
    y0, y1 = log10(min(row[2] for row in rows)) - 0.2, log10(max(row[2] for row in rows)) + 0.2

    def at(size: float, time: float) -> tuple[float, float]:
        x = margin + (log10(size) - x0) / (x1 - x0) * (width - 2 * margin)
        y = height - margin - (log10(time) - y0) / (y1 - y0) * (height - 2 * margin)
        return round(x, 1), round(y, 1)

    points = [at(size, time) for _, size, time in rows]
    scale = rows[-1][2] / rows[-1][1]
    (ax, ay), (bx, by) = at(rows[0][1], rows[0][1] * scale), at(rows[-1][1], rows[-1][2])
    text = '<text font-family="sans-serif" font-size="12"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">',
        f'<rect x="{margin}" y="{margin}" width="{width - 2 * margin}" height="{height - 2 * margin}" fill="none" '
        'stroke="#999"/>',
        f'<line x1="{ax}" y1="{ay}" x2="{bx}" y2="{by}" stroke="#bbb" stroke-dasharray="4"/>',
        f'<polyline fill="none" stroke="#0a5" points="{" ".join(f"{x},{y}" for x, y in points)}"/>',
        *(f'<circle cx="{x}" cy="{y}" r="3" fill="#0a5"/>' for x, y in points),
        f'{text} x="{margin}" y="{height - 20}">total size of constraints, {rows[0][1]:,} to {rows[-1][1]:,}</text>',
        f'{text} x="{margin}" y="{margin - 12}">seconds, {rows[0][2]:.3f} to {rows[-1][2]:.2f}; dashed: linear</text>',
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of PQ-tree reductions.")
    parser.add_argument("--output", type=Path, default=Path("."), help="folder for pq_tree.csv and pq_tree.svg")
    folder = parser.parse_args().output
    rows = []
    for leaves in LEAVES:
        sets = constraints(leaves, 10 * leaves, leaves)
        size = sum(map(len, sets))
        best = min(seconds(leaves, sets) for _ in range(3))
        rows.append((leaves, size, best))
        print(f"{leaves:>7} leaves, {size:>9} members: {best:7.3f} s, {best / size * 1e6:.2f} µs a member")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "pq_tree.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["leaves", "total_size", "seconds"])
        writer.writerows(rows)
    (folder / "pq_tree.svg").write_text(plot(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
