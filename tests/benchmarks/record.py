"""Tables of the documentation that programs make, each kept with what made it.

What stands in a page between `<!-- measured: NAME -->` and `<!-- end -->` is the table of `docs/measured/NAME.json`,
which a benchmark writes when it is given `--record`. Tests hold the pages against the files; this writes all of them
into their pages anew:

    python -m tests.benchmarks.record
"""

from __future__ import annotations

import json
import re
import shlex
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from atts_runtime.machine import cores
from atts_runtime.profiler.hardware import machine_name

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "measured"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_PLACE = re.compile(r"^<!-- measured: ([\w-]+) -->\n(.*?)^<!-- end -->\n", flags=re.MULTILINE | re.DOTALL)
_WIDTH = 120


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as they are shown. `command`: what made it, run in a clone; `machine`, `made`: where and on which day;
    `says`: a sentence of figures that stands below the table, if any."""

    command: str
    machine: str
    made: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    says: str = ""

    def markdown(self) -> str:
        """The table, below it where it comes from, and what it says."""
        lines = [_line(self.columns), "|" + "---|" * len(self.columns), *map(_line, self.rows)]
        texts = [f"Made by `{self.command}` on {self.machine}, {self.made}.", *([self.says] if self.says else [])]
        return "\n".join(["", *lines, "", *(line for text in texts for line in [*_wrapped(text), ""]), ""])


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _line(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"


def asked(module: str) -> str:
    """The command that this program was started by, `--record` left out."""
    return shlex.join(["python", "-m", module, *(argument for argument in sys.argv[1:] if argument != "--record")])


def new(command: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], says: str = "") -> Table:
    """A table that was made here and now. Raises ValueError where a row has more or fewer cells than columns."""
    if uneven := [row for row in rows if len(row) != len(columns)]:
        raise ValueError(f"{len(columns)} columns, and a row of {len(uneven[0])}: {uneven[0]}")
    machine = f"{machine_name() or 'an unknown CPU'}, {cores()} cores"
    return Table(command, machine, datetime.now(UTC).date().isoformat(), columns, tuple(rows), says)


def write(name: str, table: Table) -> None:
    """Keep a table, and write it into its pages."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(asdict(table), indent=1) + "\n", encoding="utf-8")
    refresh()


def read(name: str) -> Table:
    """A kept table."""
    of = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return Table(**{**of, "columns": tuple(of["columns"]), "rows": tuple(map(tuple, of["rows"]))})


def shown(page: Path) -> dict[str, str]:
    """What a page has in each of its places, by name."""
    return dict(_PLACE.findall(page.read_text(encoding="utf-8")))


def refresh() -> None:
    """Write every table that there is into its pages."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        written = _PLACE.sub(_with_table, text)
        if written != text:
            page.write_text(written, encoding="utf-8")


def _with_table(place: re.Match[str]) -> str:
    if not (FOLDER / f"{place[1]}.json").exists():
        return place[0]
    return f"<!-- measured: {place[1]} -->\n{read(place[1]).markdown()}<!-- end -->\n"


if __name__ == "__main__":
    refresh()
