"""HTML by hand: everything that comes from a run is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from atts_runtime.report.amounts import UNKNOWN

_WORD = 24


def cell(text: str, *, head: bool = False, css: str = "") -> str:
    """A cell of a table; what is unknown looks unknown, and one short word is not broken at its hyphens."""
    tag = "th" if head else "td"
    word = not head and "-" in text and " " not in text and len(text) <= _WORD
    names = " ".join(filter(None, (css, "unknown" if text == UNKNOWN else "", "word" if word else "")))
    return f'<{tag} class="{names}">{escape(text)}</{tag}>' if names else f"<{tag}>{escape(text)}</{tag}>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: frozenset[int] = frozenset({0})) -> str:
    """A table of text; the columns in `left` are aligned so. It scrolls by itself where it is wider than the page."""

    def row(cells: Sequence[str], *, is_head: bool) -> str:
        made = (cell(text, head=is_head, css="left" if place in left else "") for place, text in enumerate(cells))
        return f"<tr>{''.join(made)}</tr>"

    body = "\n".join(row(cells, is_head=False) for cells in rows)
    return f'<div class="wide"><table><thead>{row(head, is_head=True)}</thead>\n<tbody>{body}</tbody></table></div>\n'


def sourced(head: Sequence[str], rows: Sequence[tuple[str, Sequence[str], str]]) -> str:
    """A table of (what, a value a run, where the number comes from)."""
    made = [
        f"<tr>{cell(what)}{''.join(map(cell, values))}{cell(source, css='from')}</tr>" for what, values, source in rows
    ]
    titles = "".join(cell(text, head=True) for text in head)
    last = cell("provenance", head=True, css="from")
    top = f"<tr>{titles}{last}</tr>"
    body = "\n".join(made)
    return f'<div class="wide"><table class="by-run"><thead>{top}</thead>\n<tbody>{body}</tbody></table></div>\n'


def folded(title: str, body: str) -> str:
    """Shown on demand."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>\n"
