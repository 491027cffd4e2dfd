"""Claims about the published traces: adaptive keeps its rate on them, the published calibration does not.

They are data, no part of the project: the folder is named by ATTS_TRACES, by default ``../shared/traces`` from the
repository's root, and without it all of this is skipped.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from atts_runtime.conformal.store import load_bank
from atts_runtime.errors import InputError
from atts_sim.replay import Settings, decide, summarize
from atts_sim.trace import Scores, read_scores

TRACES = Path(os.environ.get("ATTS_TRACES") or Path(__file__).parents[2].parent / "shared" / "traces")
WITH_BANK = ["pair_math500_raw", "self_math500"]
WITH_ATTEMPTS = ["self_reject_math500", "self_fork_math500_v2sys"]
VARIANTS: list[dict[str, Any]] = [{}, *({"seed": seed} for seed in (1, 2, 3)), {"alpha": 0.1}, {"alpha": 0.6}]
QUICK = [
    ("no bank", {}),
    ("no bank", {"seed": 1}),
    ("no bank", {"alpha": 0.1}),
    ("no bank", {"alpha": 0.6}),
    ("bank", {}),
]
SHUFFLED = [(name, "no bank") for name in WITH_BANK + WITH_ATTEMPTS]
SHUFFLED_SLOWLY = [pytest.param(name, "bank", marks=pytest.mark.slow) for name in WITH_BANK]

pytestmark = pytest.mark.skipif(not TRACES.is_dir(), reason=f"no published traces in {TRACES}; set ATTS_TRACES")


@cache
def recorded(name: str) -> Scores:
    return read_scores(TRACES / f"{name}.events.parquet", skip_missing=name in WITH_ATTEMPTS)


def replayed(scores: Scores, name: str, *, bank: bool, **more: Any) -> dict[str, Any]:
    loaded = load_bank(TRACES / f"{name}.calibration.npy") if bank else None
    settings = Settings("adaptive", bank=loaded, **more)
    return summarize(scores, settings, decide(scores, settings))


def keeps_its_rate(summary: dict[str, Any]) -> None:
    alpha = summary["alpha"]
    assert abs(summary["takeover"]["rate"] - alpha) < 0.005
    turns = [row for row in summary["by_turn"] if row["scores"] >= 200]
    assert len(turns) >= 7
    assert {row["turn"]: row["rate"] for row in turns} == pytest.approx({row["turn"]: alpha for row in turns}, abs=0.03)
    assert summary["questions_in_band"] >= 0.9


def cases() -> list[Any]:
    """Trace, bank and settings; those that are not QUICK, or of a trace with attempts, only in the slow lane."""
    with_bank = [(n, bank, v) for n in WITH_BANK for bank in ("no bank", "bank") for v in VARIANTS]
    quick = [(n, *case) for n in WITH_BANK for case in QUICK] + [(n, "no bank", {}) for n in WITH_ATTEMPTS]
    every = with_bank + [(n, "no bank", v) for n in WITH_ATTEMPTS for v in VARIANTS]
    return [pytest.param(*case, marks=() if case in quick else pytest.mark.slow) for case in every]


@pytest.mark.parametrize(("name", "bank", "variant"), cases(), ids=str)
def test_adaptive_keeps_alpha_by_turn_by_question_and_overall(name: str, bank: str, variant: dict[str, Any]) -> None:
    summary = replayed(recorded(name), name, bank=bank == "bank", **variant)
    keeps_its_rate(summary)
    assert sum(summary["compared_with"].values()) == summary["scores"] == sum(r["scores"] for r in summary["by_turn"])


@pytest.mark.parametrize(("name", "bank"), SHUFFLED + SHUFFLED_SLOWLY)
def test_adaptive_keeps_alpha_with_the_questions_in_another_order(name: str, bank: str, tmp_path: Path) -> None:
    events = pd.read_parquet(TRACES / f"{name}.events.parquet")
    renumbered = np.random.default_rng(2).permutation(int(events["problem"].max()) + 1)
    shuffled = tmp_path / "shuffled.events.parquet"
    events.assign(problem=renumbered[events["problem"].to_numpy(np.int64)]).to_parquet(shuffled)
    scores = read_scores(shuffled, skip_missing=name in WITH_ATTEMPTS)
    assert len(scores) == len(recorded(name))
    assert not np.array_equal(scores.ell, recorded(name).ell)
    keeps_its_rate(replayed(scores, name, bank=bank == "bank"))


@pytest.mark.parametrize("name", WITH_BANK)
def test_in_the_order_of_admission_no_monitor_rings(name: str) -> None:
    summary = replayed(recorded(name), name, bank=False)
    assert "ville" not in {alarm["kind"] for alarm in summary["alarms"]}


def recorded_verdicts(name: str) -> NDArray[np.bool_]:
    """The published rule, taken over at a percentile of 0.6 or more, in admission order."""
    events = pd.read_parquet(TRACES / f"{name}.events.parquet")
    rows = events[events["kind"] == "score"].sort_values(["problem", "turn", "sample"], kind="stable")
    return rows["percentile"].to_numpy(np.float64) >= 0.6


@pytest.mark.parametrize(("name", "drift"), [("pair_math500_raw", 0.09), ("self_math500", 0.2)])
def test_the_published_calibration_takes_over_as_recorded_and_strays_from_alpha_by_turn(
    name: str, drift: float
) -> None:
    scores = recorded(name)
    settings = Settings("frozen", bank=load_bank(TRACES / f"{name}.calibration.npy"))
    decisions = decide(scores, settings)
    taken = np.array([decision.taken_over for decision in decisions])
    assert (taken == recorded_verdicts(name)).mean() >= 0.99
    turns = [row for row in summarize(scores, settings, decisions)["by_turn"] if row["scores"] >= 200]
    assert max(abs(row["rate"] - 0.4) for row in turns) > drift


@pytest.mark.parametrize("name", WITH_BANK)
def test_in_the_order_of_completion_adaptive_keeps_alpha_and_says_that_slow_segments_are_strange(name: str) -> None:
    summary = replayed(recorded(name), name, bank=False, order="completion")
    keeps_its_rate(summary)
    assert summary["completion_times"] == "estimated"
    rung = {alarm["monitor"].split("/")[0] for alarm in summary["alarms"] if alarm["kind"] == "ville"}
    assert rung == {"completion"}


def test_a_missing_score_of_a_published_trace_stops_its_replay() -> None:
    with pytest.raises(InputError, match=r"has 1450 missing scores of 12559, .*--skip-missing"):
        read_scores(TRACES / "self_reject_math500.events.parquet")
    assert recorded("self_reject_math500").missing == 1450
