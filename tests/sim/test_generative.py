"""The fitted workload draws what it was fitted to, and what a policy changes has consequences in it."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.control import ChainId, Draft, Score, TakeOver
from atts_runtime.errors import InputError
from atts_sim.drawn import Drawn
from atts_sim.generative import FittedWorkload
from atts_sim.generative_fit import Source, fit_workload
from atts_sim.generative_store import load_workload, save_workload
from atts_sim.goodness import Sampled, goodness
from tests.runtime.scripted import settings
from tests.sim.made_runs import recorded_of
from tests.sim.made_workloads import MODEL, as_recorded, simulate


@cache
def refitted(questions: int = 40, chains: int = 16) -> FittedWorkload:
    """To two policies: where errors are caught at once, nothing says what they would have come to."""
    keys = tuple(q % 2 for q in range(questions))
    settings = (("async-marginal", 0.3), ("barrier", 0.1))
    runs = [simulate(Drawn(MODEL, questions, chains, seed=3), policy, alpha=alpha) for policy, alpha in settings]
    return fit_workload([Source("made", as_recorded(run, MODEL), True, keys) for run in runs])


def test_a_model_is_found_again_in_what_it_draws() -> None:
    found = refitted()
    assert found.replaces
    assert found.scores is not None
    assert MODEL.scores is not None
    assert found.errors is not None
    assert MODEL.errors is not None
    between = [effects.progress for effects in found.effects]
    assert between[0] - between[1] == pytest.approx(1.0, abs=0.25)
    draft = found.stops["draft"]
    for turn, level in enumerate((-1.0, 0.5), 1):
        for question in (0, 1):
            true = level + MODEL.effects[question].progress
            assert draft.by_turn[turn] + between[question] == pytest.approx(true, abs=0.35)
    assert draft.eos == 1.0
    assert found.effects[1].strange - found.effects[0].strange == pytest.approx(0.5, abs=0.15)
    assert found.scores.after_takeover == pytest.approx(0.3, abs=0.15)
    assert found.scores.chain_sd == pytest.approx(0.4, abs=0.2)
    assert found.errors.stands == pytest.approx(MODEL.errors.stands, abs=0.1)


def test_what_is_drawn_is_distributed_as_what_was_fitted() -> None:
    recorded = simulate(Drawn(MODEL, 40, 16, seed=3), "async-marginal", alpha=0.3)
    drawn = simulate(Drawn(refitted(), 40, 16, seed=4), "async-marginal", alpha=0.3)
    for fit in goodness([Sampled.of(recorded)], [Sampled.of(drawn)]):
        # Critical distance of the two-sample test at a level of 1e-4, chains of a question being alike.
        critical = 2.2 * (sum(1 / n for n in fit.sizes)) ** 0.5 * 1.5
        assert fit.distance < critical, fit


def test_alpha_spends_the_target_and_buys_accuracy() -> None:
    runs = [simulate(Drawn(MODEL, 40, 16, seed=5), "async-marginal", alpha=alpha) for alpha in (0.05, 0.2, 0.5)]
    takeovers = [sum(d.taken_over for d in run.decided) for run in runs]
    right = [sum(bool(correct) for correct in run.correct.values()) for run in runs]
    assert takeovers == sorted(takeovers)
    assert right[0] < min(right[1:])


def test_policies_and_alphas_see_the_same_drafts_as_far_as_histories_agree() -> None:
    drafts = []
    for policy, alpha in (("async-marginal", 0.1), ("async-marginal", 0.5), ("barrier", 0.3), ("draft-only", 0.1)):
        run = simulate(Drawn(MODEL, 6, 4, seed=1), policy, alpha=alpha)
        drafts.append({(r.chain, r.turn): r.new_tokens for r in run.requests if r.kind == "draft"})
    for other in drafts[1:]:
        common = drafts[0].keys() & other.keys()
        assert len(common) >= 24
        assert all(drafts[0][key] == other[key] for key in common)


def test_more_chains_are_the_same_chains_and_others() -> None:
    few, many = (simulate(Drawn(MODEL, 4, m, seed=1), "draft-only") for m in (3, 8))
    lengths = [{(r.chain, r.turn): r.new_tokens for r in run.requests} for run in (few, many)]
    assert lengths[0].items() <= lengths[1].items()


def test_a_piece_that_may_not_be_so_long_is_cut_and_goes_on() -> None:
    whole, cut = (Drawn(MODEL, 1, 1, seed=2) for _ in range(2))
    chain = ChainId(0, 0)
    full = whole.written(Draft(0, chain, 0, 100)).tokens
    parts = [cut.written(Draft(t, chain, t, 8)).tokens for t in range(-(-full // 8))]
    assert sum(parts) == full
    assert all(part == 8 for part in parts[:-1])


def test_what_the_model_was_not_fitted_to_is_refused() -> None:
    chain = ChainId(0, 0)
    work = Drawn(replace(MODEL, stops={"draft": MODEL.stops["draft"]}, scores=None), 1, 1, seed=0)
    with pytest.raises(InputError, match="without a target that writes alone"):
        work.written(TakeOver(0, chain, 0, 50, False))
    work.written(Draft(0, chain, 0, 50))
    with pytest.raises(InputError, match="without takeovers"):
        work.written(TakeOver(0, chain, 0, 50, True))
    with pytest.raises(InputError, match="takeovers that replace"):
        work.written(TakeOver(0, chain, 0, 50, False))
    with pytest.raises(InputError, match="without scores"):
        work.ell(Score(0, chain, 0))
    with pytest.raises(InputError, match="needs questions"):
        Drawn(MODEL, 0, 1, seed=0)


def test_recordings_of_both_kinds_of_takeover_are_not_fitted_together() -> None:
    sources = [
        Source(kind, recorded_of(settings("async-marginal", takeover=kind)), kind == "resample", (0, 1, 2))
        for kind in ("continue", "resample")
    ]
    with pytest.raises(InputError, match="some runs' takeovers replace"):
        fit_workload(sources)
    assert not fit_workload(sources[:1]).replaces


def test_a_recording_that_does_not_know_what_is_right_gives_a_workload_that_does_not() -> None:
    recorded = recorded_of(settings("async-marginal"))
    for chain in recorded.recorded.values():
        chain.correct = None
    found = fit_workload([Source("made", recorded, False, (0, 1, 2))])
    assert found.errors is None
    run = simulate(Drawn(found, 3, 4, seed=0), "async-marginal", takeover="continue")
    assert set(run.correct.values()) == {None}


def test_a_workload_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    for model in (MODEL, replace(MODEL, scores=None, errors=None)):
        save_workload(model, tmp_path / "w.json")
        assert load_workload(tmp_path / "w.json") == model


@given(data=st.data())
def test_a_file_that_is_no_workload_is_refused_whatever_is_in_it(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("saved") / "w.json"
    save_workload(MODEL, path)
    whole = json.loads(path.read_text())
    at: Any = whole
    for _ in range(data.draw(st.integers(0, 3))):
        inner = [key for key in (at if isinstance(at, dict) else range(len(at))) if isinstance(at[key], dict | list)]
        if not inner:
            break
        at = at[data.draw(st.sampled_from(inner))]
    key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else list(range(len(at)))))
    at[key] = data.draw(st.sampled_from(["x", -1e999, {}, [[]], True]))
    path.write_text(json.dumps(whole))
    harmless = key == "sources" or at is whole["sources"] or (key == "replaces" and at[key] is True)
    if harmless:
        return
    with pytest.raises(InputError, match=r"w\.json"):
        load_workload(path)


def test_files_that_cannot_be_read_or_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        load_workload(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        load_workload(tmp_path / "bad.json")
    with pytest.raises(InputError, match="cannot write"):
        save_workload(MODEL, tmp_path)
