"""Every link of the built site that stays within it leads to a page, a file or an anchor: python docs/linkcheck.py SITE

MkDocs checks the pages that are Markdown; this also sees notebooks, the navigation and what plugins made.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The anchors of a page, and the addresses that it names."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.addresses: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := told.get(name))}
        if not any(word in (told.get("rel") or "") for word in ("canonical", "edit")):
            self.addresses += [value for name in ("href", "src") if (value := told.get(name))]


def broken(site: Path) -> list[str]:
    """A line for each link that leads nowhere."""
    site = site.resolve()
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        for address in page.addresses:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            folder = site if parts.path.startswith("/") else path.parent
            to = (folder / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            to = to / "index.html" if to.is_dir() else to
            anchor = unquote(parts.fragment)
            if not to.exists():
                found.append(f"{path.relative_to(site)}: {address}: no such file")
            elif anchor and to in pages and anchor not in pages[to].anchors:
                found.append(f"{path.relative_to(site)}: {address}: no such anchor")
    return found


if __name__ == "__main__":
    lines = broken(Path(sys.argv[1]))
    print(*lines or ["every link within the site leads somewhere"], sep="\n")
    sys.exit(1 if lines else 0)
