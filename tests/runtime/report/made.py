"""Run directories with an intensity made by hand, whose parts add up as a run's do, and a reader of the page."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from atts_runtime.report.facts import RunFacts
from atts_runtime.report.reading import facts, labelled
from atts_runtime.runread import read_run

FLOPS_PER_S, BYTES_PER_S = 80e9, 20e9
HARDWARE = {
    "name": "bench",
    "device": "a processor",
    "dtype": "float32",
    "threads": 1,
    "flops_per_s": FLOPS_PER_S,
    "bytes_per_s": BYTES_PER_S,
    "kind": "measured",
    "source": "made for a test",
}
_VOID = frozenset({"meta", "br", "link", "img", "hr", "input"})


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def phase(tokens: float, flops: float, moved: float, busy_s: float) -> dict[str, float]:
    """A phase as summary.json has it."""
    return {
        "tokens": tokens,
        "flops": flops,
        "bytes": moved,
        "busy_s": busy_s,
        "T_c_s": flops / FLOPS_PER_S,
        "T_m_s": moved / BYTES_PER_S,
        "intensity_flop_per_byte": flops / moved,
        "flops_per_s": flops / busy_s,
    }


def count(run: Path, *, r: float = 0.5, hardware: dict[str, Any] | None = HARDWARE, **changes: Any) -> None:
    """Give a run the keys of its FLOPs, bytes and seconds; its wall becomes 10 s, of which each engine idles 4 s.

    The draft makes 8 GFLOP on 4 GB in 5 s: at 2 FLOP/byte the roof is 40 GFLOP/s, of which 1.6 are 4%.
    """
    summary = json.loads((run / "summary.json").read_text())
    decode = phase(1000, 8e9, 4e9, 5.0)
    engine = {
        "T_c_s": 0.1,
        "T_m_s": 0.2,
        "T_roof_s": 0.2,
        "T_overhead_s": 5.8,
        "T_idle_s": 4.0,
        "r_engine": 0.1 / 4.2,
        "intensity_flop_per_byte": 2.0,
        "joules": None,
        "phases": {"decode": decode},
    }
    counted = {"busy_s": 5.0, "idle_s": 4.0, "handling_s": 1.0, "flops": 8e9, "flops_executed": 9e9, "bytes": 4e9}
    turn = {"turn": 0, "flops": 8e9, "bytes": 4e9, "T_c_s": 0.1, "T_m_s": 0.2, "T_s_s": 0.0, "r": 0.5}
    intensity = {
        "r": r,
        "T_c_s": 0.2,
        "T_m_s": 0.4,
        "T_s_s": 0.0,
        "T_overhead_s": 11.6,
        "r_engine": 0.2 / 8.4,
        "T_idle_s": 8.0,
        "intensity_flop_per_byte": 2.0,
        "machine_balance_flop_per_byte": 4.0,
        "hardware": hardware,
        "engines": dict.fromkeys(summary["engines"], engine),
        "turns": [turn],
    }
    engines = {role: told | counted for role, told in summary["engines"].items()}
    edit(run / "summary.json", wall_s=10.0, engines=engines, intensity=intensity | changes)


def read(*runs: Path) -> list[RunFacts]:
    """The facts of runs, labelled."""
    return labelled([facts(read_run(run)) for run in runs])


class Document(HTMLParser):
    """A page taken apart; raises AssertionError where its tags do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    @property
    def text(self) -> str:
        """What is read, in one line."""
        return " ".join(" ".join(self.texts).replace("\xa0", " ").split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.texts.append(data)
