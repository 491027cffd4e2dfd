"""A line that is no row of results is left out, and its point simulated again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atts_sim.pool import InProcess
from atts_sim.results import ROWS, read_sweep
from atts_sim.sweep import sweep
from tests.sim.made_studies import made_study, made_trace


@pytest.mark.parametrize(
    "change",
    [
        {"point": "0"},
        {"point": True},
        {"fingerprint": ["x"]},
        {"figures": []},
        {"figures": {"makespan_s": "long"}},
        {"figures": {"makespan_s": float("nan")}},
        {"figures": {"makespan_s": 10**400}},
        {"parameters": {"settings.alpha": [0.1]}},
        {"by_turn": ["x"]},
        {"warnings": [1]},
        {"sources": "text"},
        {"figures": {"verdict": ["x"]}},
        {"error": 3},
        {"more": 1},
        None,
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_line_with_fields_of_other_types_is_no_row(change: dict[str, Any] | None, tmp_path: Path) -> None:
    study, out = made_study(made_trace(tmp_path), "[sweep]\nchains = [3, 4]"), tmp_path / "out"
    rows = sweep(study, InProcess(study), out).rows
    first, second = (out / ROWS).read_text().splitlines()
    spoilt = "[" * 100_000 if change is None else json.dumps(json.loads(first) | change)
    (out / ROWS).write_text(f"{spoilt}\n{second}\n")
    assert read_sweep(out) == rows[1:]
    found = sweep(study, InProcess(study), out)
    assert (found.rows, found.resumed) == (rows, 1)
