"""The fenced blocks of the README and of docs/, with the reason that stands before one that is not run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
REASONS = (
    "needs a GPU",
    "needs a network",
    "needs a server",
    "needs vLLM",  # run in its lane
    "needs a trace",  # published with the method, not part of the project
    "needs models that are not here",
    "sets up an environment",
    "takes long",
    "by tests/test_deploy.py",
)
_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```$",
    flags=re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """`why`: why it is not run, None where it is."""

    page: Path
    line: int
    language: str
    body: str
    why: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """All of a page, in order."""
    text = page.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, match["language"], match["body"], match["why"])


def unfenced(page: Path) -> str:
    """The page without its fenced blocks."""
    return _BLOCK.sub("", page.read_text(encoding="utf-8"))


ALL = [block for page in PAGES for block in blocks(page)]
