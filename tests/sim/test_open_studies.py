"""Studies whose questions come over time: how they are named, what latency is then, and when it is not known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atts_runtime.conformal.bank import SealedBank
from atts_runtime.conformal.store import save_bank
from atts_runtime.errors import InputError
from atts_sim.point import Points
from atts_sim.pool import InProcess
from atts_sim.row import Row
from atts_sim.study import parse_study
from atts_sim.sweep import sweep
from tests.sim.made_studies import made_study, made_trace

QUESTIONS = 24
BARRIER = "[settings]\npolicy = 'barrier'\nquestions_in_flight = 2\n[study]\ndeadline_s = 1e6\n"


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_trace(tmp_path_factory.mktemp("open"), questions=QUESTIONS, chains=2)


def row(trace: Path, more: str = BARRIER, **options: Any) -> Row:
    overrides = tuple(f"{name.replace('__', '.')}={value}" for name, value in options.items())
    return Points(made_study(trace, more, overrides=overrides)).row(0, {})


def test_seldom_arrivals_have_the_latency_of_a_question_alone_and_no_wait(trace: Path) -> None:
    alone = row(trace, questions_in_flight=1)
    seldom = row(trace, workload__arrivals="bursts:1:1000")
    assert seldom.figures["verdict"] == "stable"
    assert 0 < seldom.figures["load"] < 0.01
    for name in ("latency_s.p50", "latency_s.max", "first_answer_s.p95"):
        assert seldom.figures[name] == pytest.approx(alone.figures[name], rel=1e-9)
    assert alone.figures["load"] is None


def test_too_many_are_saturated_and_have_no_latency(trace: Path) -> None:
    found = row(trace, workload__arrivals_per_s=1e6).figures
    assert found["verdict"] == "saturated"
    assert found["load"] > 1
    hidden = [name for name, value in found.items() if value is None]
    assert {"latency_s.p50", "latency_s.p95", "first_answer_s.max", "goodput_per_s"} <= set(hidden)
    assert found["questions_per_s"] > 0


def test_latency_counts_from_the_arrival_and_so_does_goodput(trace: Path) -> None:
    closed = row(trace).figures
    rate = 0.5 * QUESTIONS / closed["makespan_s"]
    found = row(trace, workload__arrivals_per_s=rate).figures
    assert found["verdict"] == "stable"
    assert found["admission_s"] > 0
    waited = found["latency_s.max"] - row(trace, questions_in_flight=1).figures["latency_s.max"]
    assert waited > 0
    assert found["goodput_per_s"] == pytest.approx(QUESTIONS / found["makespan_s"])
    in_time = row(
        trace, f"{BARRIER}".replace("1e6", str(found["latency_s.p50"])), workload__arrivals_per_s=rate
    ).figures
    assert in_time["goodput_per_s"] == pytest.approx(QUESTIONS / 2 / found["makespan_s"])


def test_arrivals_can_be_swept_and_the_saturated_are_never_best(trace: Path) -> None:
    more = BARRIER + "[sweep]\nworkload.arrivals_per_s = { from = 1e-2, to = 1e4, steps = 4, log = true }\n"
    study = made_study(trace, more)
    found = sweep(study, InProcess(study), None)
    assert [r.figures["verdict"] for r in found.rows] == ["stable", "stable", "saturated", "saturated"]
    assert found.best is not None
    assert found.best.figures["verdict"] == "stable"
    assert min(r.figures["makespan_s"] for r in found.rows) < found.best.figures["makespan_s"]
    assert found.front.members[2:] == (False, False)


def test_arrivals_are_part_of_what_a_row_hangs_on(trace: Path, tmp_path: Path) -> None:
    times = tmp_path / "times.txt"
    seen = {row(trace).fingerprint, row(trace, workload__arrivals="bursts:2:5").fingerprint}
    for gap in (1, 2):
        times.write_text("\n".join(str(gap * i) for i in range(QUESTIONS)))
        seen.add(row(trace, workload__arrivals=f"trace:{times}").fingerprint)
    assert len(seen) == 4
    assert row(trace, workload__arrivals="all").fingerprint in seen


def test_a_file_of_arrivals_is_relative_to_the_study(tmp_path: Path) -> None:
    text = "[workload]\narrivals = 'trace:times.txt'\n"
    assert parse_study(text, tmp_path).base["workload.arrivals"] == f"trace:{tmp_path / 'times.txt'}"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("poisson:-1", "an arrival rate must be positive"),
        ("poison:1", "unknown arrivals 'poison:1'; give all, poisson"),
        (3, "text"),
    ],
)
def test_arrivals_that_are_none_are_an_error_of_the_study(value: Any, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"workload.arrivals.*{says}"):
        parse_study(f"[workload]\narrivals = {value!r}", tmp_path)


def test_arrivals_are_said_once(trace: Path) -> None:
    found = row(trace, workload__arrivals="bursts:1:1", workload__arrivals_per_s=1)
    assert found.error == "workload.arrivals and workload.arrivals_per_s exclude each other; leave one out"


@pytest.mark.parametrize("policy", ["async-marginal", "async-adaptive"])
def test_a_policy_that_begins_with_all_questions_says_that_it_cannot(policy: str, trace: Path) -> None:
    found = row(trace, policy=policy, workload__arrivals_per_s=1)
    assert found.error is not None
    assert found.error.startswith(f"{policy} begins with the first segments of all questions")


def test_with_a_bank_async_marginal_takes_them_and_other_policies_leave_it(trace: Path, tmp_path: Path) -> None:
    save_bank(SealedBank(np.linspace(0.0, 1.0, 50)), tmp_path / "bank.npz")
    overrides = (f"bank={tmp_path / 'bank.npz'}", "workload.arrivals=bursts:1:9")
    study = made_study(trace, "[sweep]\npolicy = ['barrier', 'async-marginal']\n", overrides=overrides)
    rows = sweep(study, InProcess(study), None).rows
    assert [r.error for r in rows] == [None, None]
    assert rows[1].figures["verdict"] == "stable"
    assert [r.parameters["settings.bank"] is None for r in rows] == [True, False]
