"""What the pages share: colours, style, tables, the frame of a document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice

SHOWN = 2000
"""Most rows of a table, and most boxes of a drawing: a browser shows no more at once."""

_COLOURS = (
    "#4e79a7",
    "#f28e2b",
    "#59a14f",
    "#e15759",
    "#b07aa1",
    "#edc948",
    "#76b7b2",
    "#9c755f",
    "#ff9da7",
    "#79706e",
    "#86bcb6",
    "#d4a6c8",
)

_STYLE = """
body{font:15px/1.5 system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;margin:0 auto;padding:1.5em 2em 3em;
 max-width:1180px;color:#1f2933;background:#fff}
h1{font-size:1.5em;margin:.2em 0 .6em}h2{font-size:1.15em;margin:2em 0 .3em;border-bottom:1px solid #d8dee4;
 padding-bottom:.2em}h3{font-size:1em;margin:1.2em 0 .2em}p{margin:.3em 0 .6em;max-width:62em;color:#4a5560}
.cards{display:flex;flex-wrap:wrap;gap:.7em}
.card{border:1px solid #d8dee4;border-radius:8px;padding:.5em .9em;background:#f7f9fb}
.card b{display:block;font-size:1.25em}.card span{color:#5f6b76;font-size:.85em}
.scroll{overflow:auto;max-height:30em}
table{border-collapse:collapse;font-size:.92em}th{position:sticky;top:0;background:#f7f9fb;font-weight:600}
td,th{padding:.25em .7em;text-align:right;border-bottom:1px solid #e5e9ed;vertical-align:top;white-space:nowrap}
td.text,th.text{text-align:left}td.wide{white-space:normal;text-align:left}
.chip{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.4em}
.legend span{margin-right:1.1em;white-space:nowrap}.indexed{color:#b42318}
svg{display:block;margin:.4em 0}svg text{font:12px system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;fill:#36424e}
ul{margin:.2em 0 .6em;padding-left:1.3em}summary{cursor:pointer;color:#2f5f8f}
"""


def colour(type_id: int) -> str:
    """Colour of a cell; after the last one they begin again."""
    return _COLOURS[type_id % len(_COLOURS)]


def document(title: str, *parts: str) -> str:
    """An HTML document without outside references."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>{''.join(parts)}</html>"
    )


def first_of(count: int, what: str) -> str:
    """A sentence that says so where not all of `count` rows or boxes are shown."""
    return f"<p>The first {SHOWN:,} of {count:,} {what}.</p>" if count > SHOWN else ""


def legend(names: Sequence[str], types: Iterable[int] | None = None) -> str:
    """The colours of cells, by type id."""
    shown = range(len(names)) if types is None else types
    spans = (f'<span><i class="chip" style="background:{colour(t)}"></i>{escape(names[t])}</span>' for t in shown)
    return f'<p class="legend">{"".join(spans)}</p>'


def html_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], text: Iterable[int] = (0,), scroll: bool = True
) -> str:
    """A table of cells that are HTML already; the columns `text` stand to the left, the others to the right.

    The last column may wrap if it is among `text`. With `scroll`, a long table scrolls within the page. It has the
    first :data:`SHOWN` rows.
    """
    left = set(text)

    def kind(column: int, tag: str) -> str:
        if column not in left:
            return ""
        return ' class="wide"' if tag == "td" and column == len(header) - 1 else ' class="text"'

    head = "".join(f"<th{kind(column, 'th')}>{name}</th>" for column, name in enumerate(header))
    body = "".join(
        "<tr>" + "".join(f"<td{kind(column, 'td')}>{cell}</td>" for column, cell in enumerate(row)) + "</tr>"
        for row in islice(rows, SHOWN)
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>' if scroll else table
