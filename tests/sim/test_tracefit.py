"""Costs of published traces: found again from times that they made, and from those of real ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from atts_runtime.control import ChainId
from atts_runtime.errors import InputError
from atts_sim.cli import main
from atts_sim.commands.validate_trace import costs_of
from atts_sim.recorded import Prompt, Recorded, RecordedChain, follow_record
from atts_sim.tracefit import Slots, TraceCost, TraceCosts, fit_trace, halves, judge
from atts_sim.tracetokens import at_cap
from atts_sim.workload import Written
from tests.sim.test_published_traces import TRACES, WITH_BANK

CAP = 100
TRUE = TraceCosts(TraceCost(0.01, 2e-4, 0.0, 0.0), TraceCost(0.03, 1e-4, 0.2, 1e-4), Slots(4, 2), 0.0)


def made(questions: int, *, seed: int = 0, costs: TraceCosts = TRUE) -> Recorded:
    """Chains of up to five turns, a third of their segments taken over, that last as long as `costs` have them."""
    rng = np.random.default_rng(seed)
    chains: dict[ChainId, RecordedChain] = {}
    for place in np.ndindex(questions, 4):
        record = RecordedChain()
        turns = rng.integers(1, 6)
        for turn in range(turns):
            last = turn == turns - 1
            taken = rng.random() < 1 / 3
            draft = Written(int(rng.integers(1, CAP)) if last else CAP, answered=last and not taken)
            record.drafts.append(draft)
            record.ells.append(1.0)
            record.takeovers.append(Written(int(rng.integers(1, CAP)), answered=last) if taken else None)
        chains[ChainId(*map(int, place))] = record
    recorded = Recorded([Prompt(50, 50)] * questions, chains)
    run = costs.run(recorded, follow_record(recorded))
    for finish, end in run.finished:
        chains[finish.chain].duration_s = end - run.admitted_s[finish.chain.question]
    return recorded


def test_questions_that_were_not_fitted_last_as_long_as_predicted() -> None:
    fitted, others = halves(made(16))
    costs = fit_trace(fitted, TRUE.slots)
    errors = judge(others, costs)
    assert errors.questions == 8
    assert abs(errors.total) < 0.01
    assert errors.median < 0.01
    assert errors.p90 < 0.03
    assert costs.draft.step_s + 4 * costs.draft.row_s == pytest.approx(0.0108, rel=0.1)
    assert costs.target.step_s + 2 * costs.target.row_s == pytest.approx(0.0302, rel=0.1)


def test_the_sum_of_the_fitted_questions_is_met_exactly() -> None:
    recorded = made(6, seed=1)
    assert judge(recorded, fit_trace(recorded, Slots(3, 3))).total == pytest.approx(0.0, abs=1e-9)


def test_a_trace_on_a_machine_of_half_the_speed_has_twice_the_constants() -> None:
    recorded = made(4, seed=2)
    slower = {c: replace(r, duration_s=2 * (r.duration_s or 0.0)) for c, r in recorded.recorded.items()}
    once, twice = (fit_trace(r, TRUE.slots) for r in (recorded, Recorded(recorded.prompts, slower)))
    assert twice.draft.step_s == pytest.approx(2 * once.draft.step_s, rel=1e-9)
    assert twice.target.score_s == pytest.approx(2 * once.target.score_s, rel=1e-9)


def test_the_simulations_of_a_fit_are_told() -> None:
    told: list[int] = []
    fit_trace(made(2), TRUE.slots, watch=told.append)
    assert told == list(range(1, len(told) + 1))
    assert len(told) > 100


def test_how_far_a_fit_is_shows_with_the_trace_s_name_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    costs_of(Path("made [b].events.parquet"), made(2))
    assert "fitting costs to made [b].events.parquet" in capsys.readouterr().err


def test_chains_without_times_are_refused() -> None:
    recorded = made(2)
    recorded.recorded[ChainId(1, 2)].duration_s = None
    with pytest.raises(InputError, match="does not say how long its chains took"):
        fit_trace(recorded)


def counted(recorded: Recorded, factor: float, *, seed: int = 3) -> Recorded:
    """The same counted by another tokenizer: in each question `factor` times as many, and each piece a few per cent
    more or less."""
    rng = np.random.default_rng(seed)

    def count(pieces: list[Written | None]) -> list[Written | None]:
        return [p and replace(p, tokens=max(1, round(p.tokens * factor * rng.uniform(0.95, 1.1)))) for p in pieces]

    chains = {c: replace(r, drafts=count(r.drafts), takeovers=count(r.takeovers)) for c, r in recorded.recorded.items()}
    return Recorded(recorded.prompts, chains)


def test_pieces_at_the_cap_are_of_one_length_whatever_they_count() -> None:
    true = made(12)
    mended = at_cap(counted(true, 1.3))
    of_true = [w.tokens for r in true.recorded.values() for w in r.drafts if w]
    of_mended = [w.tokens for r in mended.recorded.values() for w in r.drafts if w]
    unit = max(of_mended) / CAP
    assert unit == pytest.approx(1.3, rel=0.05)
    at = [m for t, m in zip(of_true, of_mended, strict=True) if t == CAP]
    assert sum(m == max(of_mended) for m in at) >= 0.98 * len(at)
    shorter = [(t, m) for t, m in zip(of_true, of_mended, strict=True) if t < 0.85 * CAP]
    assert len(shorter) > 20
    assert all(abs(m - t * unit) <= 0.12 * t * unit + 1 for t, m in shorter)


def test_a_question_that_is_counted_higher_than_others_is_brought_to_their_measure() -> None:
    true = made(40, seed=5)
    higher = {c: r for c, r in counted(true, 1.2).recorded.items() if c.question == 0}
    mixed = Recorded(true.prompts, {**counted(true, 1.0).recorded, **higher})

    def over_true(recorded: Recorded) -> float:
        """How many times as long pieces of question 0 that are below the cap are, on average."""
        return float(
            np.mean(
                [
                    piece.tokens / was.tokens
                    for c in higher
                    for was, piece in zip(true.recorded[c].drafts, recorded.recorded[c].drafts, strict=True)
                    if was is not None and piece is not None and 10 < was.tokens < 0.8 * CAP
                ]
            )
        )

    assert over_true(at_cap(mixed)) < over_true(mixed) - 0.08


def test_lengths_without_a_cap_stay_as_they_are() -> None:
    rng = np.random.default_rng(4)
    recorded = made(12)
    chains = {
        c: replace(r, drafts=[w and replace(w, tokens=int(rng.integers(1, 500))) for w in r.drafts])
        for c, r in recorded.recorded.items()
    }
    uncapped = Recorded(recorded.prompts, chains)
    assert at_cap(uncapped).recorded == uncapped.recorded


def written(folder: Path, recorded: Recorded) -> Path:
    """The recording as a published trace."""
    events, samples = [], []
    for number, (chain, record) in enumerate(sorted(recorded.recorded.items())):
        common = {"sample": number, "problem": chain.question}
        for turn, (draft, takeover) in enumerate(zip(record.drafts, record.takeovers, strict=True)):
            for kind, piece in (("draft", draft), ("score", draft), ("target", takeover)):
                if piece is not None:
                    ppl = 2.0 if kind == "score" else np.nan
                    events.append({**common, "turn": turn, "kind": kind, "tokens": piece.tokens, "ppl": ppl})
        samples.append({**common, "duration_s": record.duration_s, "final_answer": "1", "question_chars": 200})
    path = folder / "made.events.parquet"
    pd.DataFrame(events).to_parquet(path)
    pd.DataFrame(samples).to_parquet(folder / "made.samples.parquet")
    return path


def test_the_command_prints_errors_and_constants_and_judges_by_the_tolerance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, made(6, costs=replace(TRUE, slots=Slots())))
    assert main(["validate", str(path), "--json", "--tolerance", "0.05"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "holds"
    assert abs(told["traces"][0]["total_error"]) < 0.05
    (tmp_path / "other").mkdir()
    slower = replace(TRUE, slots=Slots(), target=replace(TRUE.target, step_s=0.06))
    other = written(tmp_path / "other", made(3, seed=7, costs=slower))
    assert main(["validate", str(other), "--fit-on", str(path), "--tolerance", "0.05"]) == 1
    out = capsys.readouterr().out
    assert "fitted constants" in out
    assert "made" in out


@pytest.mark.slow
@pytest.mark.skipif(not TRACES.is_dir(), reason=f"no published traces in {TRACES}; set ATTS_TRACES")
@pytest.mark.parametrize("name", WITH_BANK)
def test_every_other_question_predicts_the_others(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(TRACES / f"{name}.events.parquet"), "--json", "--tolerance", "0.02"]) == 0
    errors = json.loads(capsys.readouterr().out)["traces"][0]
    assert errors["questions"] == 50
    assert errors["median"] < 0.04
    assert errors["p90"] < 0.1
