"""Claims about the workload in profiles/workloads: parameters of a published trace, which studies can draw from."""

from __future__ import annotations

from pathlib import Path

import pytest

from atts_runtime.profiler.hardware import profiles_folder
from atts_sim.generative_store import load_workload
from atts_sim.point import Points
from atts_sim.study import parse_study

FILES = sorted((profiles_folder() / "workloads").glob("*.json"))
QUANTILES = 21


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_holds_quantiles_and_says_where_they_are_from(path: Path) -> None:
    workload = load_workload(path)
    assert workload.scores is not None
    turns = [turn for of in workload.lengths.values() for turn in (*of.last, *of.others)]
    turns += [turn for kind in workload.scores.kinds for turn in kind.by_turn]
    assert {len(turn) for turn in turns} == {QUANTILES}
    assert '"about": "fitted: ' in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_study_draws_from_it_and_the_rate_is_near_what_was_recorded(path: Path) -> None:
    """The published trace took over 0.41 of its segments at alpha 0.4, and 0.95 of its chains answered."""
    study = parse_study(
        f"""
        workload = {{ kind = "fitted", path = "{path}" }}
        [engines]
        hardware = "nvidia-h100-80gb-sxm"
        dtype = "bfloat16"
        draft.model = "deepseek-r1-distill-llama-8b"
        target.model = "qwq-32b"
        target.tp = 2
        [settings]
        alpha = 0.4
        chains = 8
        turns = 15
        questions = 40
        draft_tokens = 500
        takeover_tokens = 500
        takeover = "continue"
        [objective]
        minimise = "makespan_s"
        """,
        Path.cwd(),
    )
    row = Points(study).row(0, {})
    assert row.error is None
    assert row.figures["takeover_rate"] == pytest.approx(0.41, abs=0.08)
    assert row.figures["answered"] == pytest.approx(0.95, abs=0.04)
