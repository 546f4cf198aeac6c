"""What verbs print: tables, JSON, progress."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from edbatch_tvm.atomic_file import write_text


@contextmanager
def learning_bar() -> Iterator[Callable[[int, int, int], None]]:
    """A progress bar of learning on standard error; silent where that is no terminal."""
    # The delay keeps an empty bar from flashing up where nothing is learned.
    with tqdm(desc="learning", unit=" episodes", delay=0.5, disable=None, leave=False, file=sys.stderr) as bar:

        def show(episodes: int, batches: int, bound: int) -> None:
            bar.set_postfix_str(f"{batches} batches, bound {bound}", refresh=False)
            bar.update(episodes - bar.n)

        yield show


@contextmanager
def search_bar() -> Iterator[Callable[[int, int, int], None]]:
    """A line on standard error that says how the search in a minibatch goes; silent where that is no terminal."""
    bar = tqdm(desc="searching", unit=" beams", delay=0.5, disable=None, leave=False, position=1, file=sys.stderr)
    with bar:

        def show(width: int, batches: int, bound: int) -> None:
            bar.set_postfix_str(f"width {width}: {batches} batches, bound {bound}", refresh=False)
            bar.update()

        yield show


@contextmanager
def tuning_bar(trials: int) -> Iterator[Callable[[str, float | None], None]]:
    """A progress bar of tuning on standard error; silent where that is no terminal."""
    with tqdm(total=trials, desc="tuning", unit=" trials", disable=None, leave=False, file=sys.stderr) as bar:

        def show(name: str, ratio: float | None) -> None:
            bar.set_postfix_str(
                f"{name}: {'failed' if ratio is None else f'{ratio:.2f} of the default'}", refresh=False
            )
            bar.update()

        yield show


@contextmanager
def training_bar(steps: int) -> Iterator[Callable[[int, int, float], None]]:
    """A progress bar of the steps of an epoch on standard error; silent where that is no terminal."""
    with tqdm(total=steps, unit=" steps", disable=None, leave=False, file=sys.stderr) as bar:

        def show(epoch: int, step: int, loss: float) -> None:
            if step < bar.n:
                bar.reset()
            bar.set_description_str(f"epoch {epoch}", refresh=False)
            bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
            bar.update(step - bar.n)

        yield show


def print_under_bars(text: str) -> None:
    """Print a line while a progress bar is shown."""
    with tqdm.external_write_mode(file=sys.stdout):
        print(text, flush=True)


def track(items: Iterable[Any], what: str) -> Iterable[Any]:
    """`items`, with a progress bar."""
    return tqdm(items, desc=what, disable=None, leave=False, file=sys.stderr)


def print_pairs(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def write_json(path: Path | None, figures: dict[str, Any]) -> None:
    """Write `figures` to `path`, to standard output for ``-``, nowhere for None; what is no number becomes null."""
    if path is None:
        return
    text = json.dumps(_finite(figures), indent=2, allow_nan=False) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
    else:
        write_text(path, text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
