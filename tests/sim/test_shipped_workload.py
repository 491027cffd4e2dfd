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


def test_a_study_names_it_as_it_names_profiles_and_cuts_no_segment_that_it_does_not_bound(tmp_path: Path) -> None:
    study = parse_study('workload = { kind = "fitted", path = "math500-r1-llama-8b-qwq-32b" }', tmp_path)
    points = Points(study)
    config = points.config(points.options({}))
    assert (config.draft_tokens, config.takeover_tokens, config.questions) == (500, 500, 100)
    bounded = points.config(points.options({"settings.draft_tokens": 200}))
    assert (bounded.draft_tokens, bounded.takeover_tokens) == (200, 500)


def test_a_file_of_the_study_comes_before_a_shipped_workload_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "math500-r1-llama-8b-qwq-32b").write_text("{}")
    study = parse_study('workload = { kind = "fitted", path = "math500-r1-llama-8b-qwq-32b" }', tmp_path)
    assert study.base["workload.path"] == str(tmp_path / "math500-r1-llama-8b-qwq-32b")
