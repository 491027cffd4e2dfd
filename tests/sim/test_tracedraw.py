"""Published traces drawn anew: the rule read off them, intervals that hold what was recorded, what-ifs in pairs."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pandas as pd
import pytest

from atts_runtime.control import ChainId, Knobs, recipe
from atts_runtime.errors import InputError
from atts_sim.cli import main
from atts_sim.generative import Nearness
from atts_sim.recorded import Recorded, RecordedChain
from atts_sim.tracedraw import Interval, Shares, TraceModel, fit_model
from atts_sim.tracefit import Slots, TraceCost, TraceCosts
from atts_sim.whatif import Setting, answers, sample
from atts_sim.workload import Written
from tests.sim.made_workloads import MODEL, as_recorded

COSTS = TraceCosts(TraceCost(0.01, 1e-3, 0.0, 0.0), TraceCost(0.02, 2e-3, 0.1, 1e-4), Slots(8, 2), 0.0)
SPREAD = tuple(NormalDist(0.0, 0.7).inv_cdf((i + 0.5) / 30) for i in range(30))
BANK = tuple(i / 100 for i in range(100))
ALPHA = 0.3
TRUE = TraceModel(
    replace(
        MODEL,
        replaces=False,
        errors=None,
        prompts=MODEL.prompts[:1] * len(SPREAD),
        effects=tuple(replace(MODEL.effects[0], near=Nearness(p)) for p in SPREAD),
    ),
    COSTS, chains=6, turns=8, bank=BANK, alpha=ALPHA, agreement=1.0,
)  # fmt: skip


@cache
def made(seed: int = 1, questions: int = 30) -> Recorded:
    """What a draw of `TRUE` would have left on record, question after question."""
    drawn = TRUE.drawn(seed, seed=0, questions=questions)
    run = COSTS.run(drawn, recipe("async-marginal", action="continue")(Knobs(ALPHA, bank=BANK)), in_flight=1)
    recorded = as_recorded(run, drawn.model)
    for finish, end in run.finished:
        recorded.recorded[finish.chain].duration_s = end - run.admitted_s[finish.chain.question]
        recorded.recorded[finish.chain].correct = None
    return recorded


@cache
def model() -> TraceModel:
    return fit_model("made", made(), COSTS)


def test_the_rule_is_read_off_the_recording() -> None:
    assert model().agreement == 1.0
    threshold = BANK[-int(ALPHA * len(BANK))]
    share = sum(ell >= threshold for ell in model().bank) / len(model().bank)
    assert model().alpha == pytest.approx(share, abs=0.02)


def test_other_questions_lie_in_the_intervals() -> None:
    drawn = sample(model(), [Setting(None, 1)], draws=12, seed=0, questions=30)
    recorded = Shares.recorded(made(seed=2))
    (answer,) = answers([Setting(None, 1)], drawn)
    for interval, value in (
        (answer.total_s, recorded.total_s), (answer.takeover, recorded.takeover), (answer.answered, recorded.answered),
    ):  # fmt: skip
        assert interval.low * 0.9 <= value <= interval.high * 1.1
        assert interval.mean == pytest.approx(value, rel=0.25)


def test_what_if_answers_compare_the_same_draws() -> None:
    settings = [Setting(None, 1), Setting(None, 4), Setting(None, None), Setting(0.1, 1)]
    drawn = sample(model(), settings, draws=4, seed=3, questions=12)
    base, four, every, fewer = answers(settings, drawn)
    assert base.total_change == Interval(0.0, 0.0, 0.0)
    assert every.total_change.high < 0.0
    # Beyond four, the target's slots are what there is to wait for.
    assert every.total_s.mean <= 1.02 * four.total_s.mean
    assert four.total_s.mean < base.total_s.mean
    assert four.takeover_change == Interval(0.0, 0.0, 0.0)
    assert fewer.takeover_change.high < 0.0
    assert fewer.total_change.mean < 0.0
    assert drawn == sample(model(), settings, draws=4, seed=3, questions=12, jobs=2)


def test_what_cannot_be_fitted_is_refused_in_a_line() -> None:
    whole = made()

    def changed(**changes: object) -> Recorded:
        chains = {chain: replace(of, **changes) for chain, of in whole.recorded.items()}
        for of in chains.values():
            for name in ("ells", "takeovers"):
                if name in changes:
                    setattr(of, name, [None] * of.turns)
        return Recorded(whole.prompts, chains)

    with pytest.raises(InputError, match="has no scores"):
        fit_model("made", changed(ells=None), COSTS)
    with pytest.raises(InputError, match="takes over nobody"):
        fit_model("made", changed(takeovers=None), COSTS)
    silent = Recorded(
        whole.prompts,
        {
            chain: replace(
                of,
                drafts=[None if w is None else replace(w, answered=False) for w in of.drafts],
                takeovers=[None if w is None else replace(w, answered=False) for w in of.takeovers],
            )
            for chain, of in whole.recorded.items()
        },
    )
    with pytest.raises(InputError, match="no chain of made answered"):
        fit_model("made", silent, COSTS)
    backwards = {
        chain: replace(of, ells=[None if e is None else 3 - e for e in of.ells]) for chain, of in whole.recorded.items()
    }
    with pytest.raises(InputError, match="follow a threshold"):
        fit_model("made", Recorded(whole.prompts, backwards), COSTS)


def written_trace(folder: Path, recorded: Recorded) -> Path:
    """The tables of a published trace."""
    import math

    events: list[dict[str, object]] = []
    samples = []
    for chain, of in recorded.recorded.items():
        number = chain.question * recorded.chains + chain.index
        last = of.takeovers[-1] or of.drafts[-1]
        assert last is not None
        answer = "7" if last.answered else "invalid"
        samples.append(
            {
                "sample": number,
                "problem": chain.question,
                "duration_s": of.duration_s,
                "final_answer": answer,
                "question_chars": 40,
            }
        )
        for turn in range(of.turns):
            for kind, tokens, ell in (
                ("draft", of.drafts[turn], None), ("score", None, of.ells[turn]), ("target", of.takeovers[turn], None)
            ):  # fmt: skip
                if tokens is not None or ell is not None:
                    row = {"sample": number, "problem": chain.question, "turn": turn, "kind": kind}
                    ppl = None if ell is None else math.exp(ell)
                    events.append(row | {"tokens": None if tokens is None else tokens.tokens, "ppl": ppl})
    path = folder / "made.events.parquet"
    pd.DataFrame(events).to_parquet(path)
    pd.DataFrame(samples).to_parquet(folder / "made.samples.parquet")
    return path


def test_the_commands_answer_from_a_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("whatif", "validate_drawn"):
        monkeypatch.setattr(f"atts_sim.commands.{module}.costs_of", lambda path, recorded: COSTS)
    path = written_trace(tmp_path, made())
    ask = ["whatif", str(path), "--alpha", "0.1", "--in-flight", "1,all", "--draws", "3", "--jobs", "1"]
    assert main([*ask, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(a["setting"]["alpha"], a["setting"]["in_flight"]) for a in told["answers"]] == [
        (None, 1), (None, None), (0.1, 1), (0.1, None),
    ]  # fmt: skip
    assert told["answers"][1]["total_change"]["high"] < 0
    assert main(ask) == 0
    assert "of the recorded verdicts" in capsys.readouterr().out


def drawn(capsys: pytest.CaptureFixture[str], path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """What `validate --workload fitted` exits with, and the object that it prints."""
    status = main(["validate", str(path), "--workload", "fitted", "--json", *arguments])
    return status, json.loads(capsys.readouterr().out)


def test_questions_drawn_are_judged_by_intervals_and_their_total_by_the_tolerance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atts_sim.commands.validate_drawn.costs_of", lambda path, recorded: COSTS)
    monkeypatch.setattr("atts_sim.commands.validate_drawn.DRAWS", 20)
    path = written_trace(tmp_path, made())
    status, told = drawn(capsys, path)
    (trace,) = told["traces"]
    assert (status, told["verdict"], told["tolerance"], trace["holds"]) == (0, "holds", 0.1, True)
    assert trace["questions"] == 15
    assert set(trace["drawn"]) == {"total_s", "takeover", "answered"}
    for name, interval in trace["drawn"].items():
        assert interval["low"] <= trace["recorded"][name] <= interval["high"]
    error = trace["predicted"]["total_s"] / trace["recorded"]["total_s"] - 1
    assert trace["total_error"] == pytest.approx(error)
    assert 0.05 < abs(error) < 0.1
    status, told = drawn(capsys, path, "--tolerance", "0.05")
    assert (status, told["verdict"], told["tolerance"], told["traces"][0]["holds"]) == (1, "off", 0.05, False)
    assert told["traces"][0]["total_error"] == trace["total_error"]
    # Of few draws the intervals are narrow: those of other questions do not hold these.
    monkeypatch.setattr("atts_sim.commands.validate_drawn.DRAWS", 6)
    assert main(["validate", str(written_trace(tmp_path, made(4))), "--workload", "fitted", "--tolerance", "0.9"]) == 1
    out = capsys.readouterr().out
    assert "outside" in out
    assert "0 of 1 traces with every figure in its interval and the total within 90%: off" in out


def test_help_says_what_is_judged_of_a_published_trace(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["validate", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "Of a published trace the total of its questions' times is judged by --tolerance" in told
    assert "with --workload fitted, also whether what was recorded lies in the intervals" in told


def test_nothing_of_the_other_questions_is_known_to_what_predicts_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Recorded] = []

    def costs_of(path: Path, recorded: Recorded) -> TraceCosts:
        seen.append(recorded)
        return COSTS

    monkeypatch.setattr("atts_sim.commands.validate_drawn.costs_of", costs_of)
    monkeypatch.setattr("atts_sim.commands.validate_drawn.DRAWS", 2)

    def counted(factor: float) -> Recorded:
        """Drafts that all stopped at the cap, counted such times as high in the other questions as in the fitted."""

        def pieces(chain: ChainId, of: RecordedChain) -> list[Written | None]:
            tokens = round((60 + chain.index) * (factor if chain.question % 2 else 1.0))
            return [draft and replace(draft, tokens=tokens) for draft in of.drafts]

        chains = {chain: replace(of, drafts=pieces(chain, of)) for chain, of in made().recorded.items()}
        return Recorded(made().prompts, chains)

    one, other = (drawn(capsys, written_trace(tmp_path, counted(factor)))[1]["traces"][0] for factor in (1.0, 1.2))
    assert seen[0].recorded == seen[1].recorded
    assert one == other


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--alpha", "1.5"], "alpha must lie"),
        (["--in-flight", "1,many"], "--in-flight takes numbers"),
        (["--in-flight", "2,2"], "names a number twice"),
        (["--draws", "1"], "at least 2 draws"),
    ],
)
def test_a_wrong_question_is_one_line(more: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whatif", "x.events.parquet", *more]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_run_directory_is_no_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["whatif", str(tmp_path)]) == 2
    assert "is no published trace" in capsys.readouterr().err
