"""A piece of the page: what it shows, said in a sentence, above the figure or table that shows it."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Shown:
    """`finding` is plain text; `body` is HTML; `note` is plain text on how to read it or where its numbers come from.
    A piece that has nothing to show says why in its finding and is no `result`."""

    finding: str
    body: str = ""
    note: str = ""
    result: bool = True

    def html(self) -> str:
        """As a figure with its sentence on top."""
        note = f'<figcaption class="note">{escape(self.note)}</figcaption>' if self.note else ""
        return f"<h3>{escape(self.finding)}</h3>\n<figure>{self.body}{note}</figure>\n"


def nothing(why: str) -> Shown:
    """In place of what cannot be shown."""
    return Shown(why, result=False)
