"""The documented way from a sweep to a run: what the simulator predicts is what the runtime achieves.

Times are not compared here: they depend on the machine. docs/deploy.md has them, by `tests/benchmarks/bench_deploy.py`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from atts_runtime.cli import main as run
from atts_sim.cli import main as simulate
from tests.docs.blocks import ROOT, blocks

COMMANDS = [
    line.removesuffix(" || true").split()
    for block in blocks(ROOT / "docs" / "deploy.md")
    if block.language == "sh"
    for line in block.body.splitlines()
]


def predicted(best: Path) -> dict[str, float]:
    """What the comments of best.toml say."""
    return {name: float(value) for name, value in re.findall(r"# Predicted: (\S+) = (\S+)", best.read_text())}


@pytest.mark.slow
def test_what_wins_a_sweep_does_in_the_runtime_what_was_predicted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Takeovers within 0.08; vote and chains within what 16 questions can tell: 0.25, of a share near 1."""
    monkeypatch.chdir(tmp_path)
    for program, *arguments in COMMANDS:
        code = {"atts-runtime": run, "atts-sim": simulate}[program](arguments)
        assert code == 0 or arguments[0] == "validate"
    told = predicted(Path("sweeps/deploy/best.toml"))
    summary: dict[str, Any] = json.loads(Path("runs/best/summary.json").read_text())
    assert told["voted"] >= 0.95
    assert summary["accuracy"]["voted"] == pytest.approx(told["voted"], abs=0.25)
    assert summary["accuracy"]["mean_chain"] == pytest.approx(told["accuracy"], abs=0.25)
    rate = told.get(
        "takeover_rate"
    )  # not known of a target that writes alone, which wins where engines are in each other's way
    assert summary["takeover_rate"] == (rate and pytest.approx(rate, abs=0.08))
    assert summary["parts"]["early_stop"] == ["majority"]
    assert summary["stopped_chains"] > 0


def test_the_page_has_the_whole_way() -> None:
    assert [arguments[:2] for arguments in COMMANDS] == [
        *4 * [["atts-runtime", "run"]], ["atts-sim", "validate"], ["atts-sim", "sweep"], ["atts-runtime", "run"],
    ]  # fmt: skip
