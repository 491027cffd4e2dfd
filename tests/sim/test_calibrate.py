"""Costs fitted to runs are those that made them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from atts_runtime.errors import InputError
from atts_sim.calibrate import calibrate, profile_of, stated_costs
from atts_sim.clock import Clock
from atts_sim.contention import Contended
from atts_sim.correction import CallFit, Correction, Growth, Recency, Samples, fit
from atts_sim.cost import StepShape
from atts_sim.measured import MeasuredRun, measured_run
from atts_sim.samples import rows_new
from tests.sim.made_runs import CALLS, HANDLING, TRUE, WAKE_S, make_run, specs, true_costs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[MeasuredRun]:
    folder = tmp_path_factory.mktemp("made")
    for policy, chains in (("barrier", 4), ("async-marginal", 8)):
        make_run(folder / policy, policy, chains=chains)
    return [measured_run(folder / policy) for policy in ("barrier", "async-marginal")]


def test_costs_are_recovered_from_the_runs_that_they_made(runs: list[MeasuredRun]) -> None:
    costs = calibrate(runs)
    assert costs.handling.latency_s == pytest.approx(HANDLING.latency_s, rel=1e-6)
    assert costs.handling.each_s == pytest.approx(HANDLING.each_s, rel=1e-6)
    for role, engine in costs.engines.items():
        letting_in = CALLS.generate.call_s if role == "draft" else 0.0  # a simulated pass begins when that is over
        assert engine.wake_s == pytest.approx(WAKE_S + letting_in, rel=1e-6), role
    for (role, phase), error in costs.fitted.items():
        true, found = TRUE[role, phase], costs.engines[role].corrections[phase]
        assert abs(error.sum_error) < 0.02, (role, phase)
        # Of sizes that the runs have: no pass feeds more than three of the draft's chains.
        shape = StepShape(4, 4, 1, 400, 120, 4) if phase == "decode" else StepShape(2, 40, 24, 200, 120, 40)
        profile, rows = costs.engines[role].model.cost(phase, shape).seconds, shape.rows  # type: ignore[arg-type]
        for beside in (0.0, 1.0):
            taken = true.seconds(profile, rows, shared=beside)
            assert found.seconds(profile, rows, shared=beside) == pytest.approx(taken, rel=0.15), (role, phase, beside)


def test_runs_held_out_are_predicted_from_the_others(runs: list[MeasuredRun]) -> None:
    costs = calibrate(runs)
    assert costs.held_out.keys() == costs.fitted.keys()
    for key, error in costs.held_out.items():
        assert abs(error.sum_error) < 0.15 or error.steps < 100, key  # of a few steps, one run knows little


def test_of_too_few_steps_the_profile_stands(tmp_path: Path) -> None:
    make_run(tmp_path / "run", "target-only", chains=1, questions=1)
    costs = calibrate([measured_run(tmp_path / "run")])
    assert costs.engines["target"].corrections["append"] == Correction()


def test_runs_of_other_models_are_not_fitted_together(runs: list[MeasuredRun], tmp_path: Path) -> None:
    make_run(tmp_path / "run", "barrier", chains=2)
    manifest = tmp_path / "run" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"layers": 2', '"layers": 3'))
    with pytest.raises(InputError, match="another draft model"):
        calibrate([*runs, measured_run(tmp_path / "run")])
    with pytest.raises(InputError, match=r"no engine profile is of .* atts-runtime profile"):
        calibrate([measured_run(tmp_path / "run")])


def test_runs_of_one_engine_for_both_roles_are_not_fitted_together_with_those_of_two(
    runs: list[MeasuredRun], tmp_path: Path
) -> None:
    make_run(tmp_path / "one", "barrier", draft="m", target="m")
    one, two = measured_run(tmp_path / "one"), runs[0]
    assert (one.one_engine, two.one_engine) == (True, False)
    message = f"{one.path} had one engine for its two roles, {two.path} had two; fit on runs of one pair"
    for mixed in ([one, *runs], [*runs, one]):
        with pytest.raises(InputError) as raised:
            calibrate(mixed)
        assert str(raised.value) == message


@pytest.mark.parametrize("others", [{}, {"draft": "m", "target": "m"}], ids=["two engines", "one engine"])
def test_runs_of_the_target_alone_are_fitted_together_with_those_of_either_kind(
    others: dict[str, str], tmp_path: Path
) -> None:
    make_run(tmp_path / "pair", "barrier", chains=2, **others)
    make_run(tmp_path / "alone", "target-only", chains=2, **others)
    pair, alone = (measured_run(tmp_path / name) for name in ("pair", "alone"))
    used = "target"
    if others:  # what served both roles goes by the name of the first
        used = "draft"
        pair = replace(pair, specs={used: alone.specs["target"]}, logs={used: pair.logs["target"]})
    costs = calibrate([pair, alone])
    assert costs.one_engine == bool(others)
    told = [error.steps for (role, _), error in costs.fitted.items() if role == used]
    assert sum(told) == len(pair.logs[used].start_s) + len(alone.logs["target"].start_s)
    turned = calibrate([alone, pair])
    assert turned.fitted.keys() == costs.fitted.keys()
    for key, error in costs.fitted.items():
        assert turned.fitted[key].steps == error.steps


def test_runs_of_one_model_are_fitted_together(tmp_path: Path) -> None:
    for chains in (2, 4):
        make_run(tmp_path / f"{chains}", "self", chains=chains)
    costs = calibrate([measured_run(tmp_path / f"{chains}") for chains in (2, 4)])
    assert costs.one_engine
    assert len(costs.engines) == 1


def test_profiles_stand_as_stated_where_nothing_is_fitted() -> None:
    costs = stated_costs(specs())
    shape = StepShape(4, 4, 1, 400, 120, 4)
    for engine in costs.engines.values():
        assert Contended(Clock(), engine).cost("decode", shape) == engine.model.cost("decode", shape)  # type: ignore[arg-type]
        assert engine.per_call is not None


def test_what_calls_cost_is_told_by_the_passes_that_they_begin_and_end_in(runs: list[MeasuredRun]) -> None:
    for engine in calibrate(runs).engines.values():
        found = engine.per_call
        assert found is not None
        whole = found.generate.call_s + found.end_s  # which is which, calls that follow one another leave open
        assert whole == pytest.approx(CALLS.generate.call_s + CALLS.end_s, rel=0.3)


def test_of_several_profiles_that_of_the_run_s_machine_is_taken() -> None:
    spec = specs()["target"]
    for cpu, name in (
        ("Intel(R) Xeon(R) Processor, family 6, model 207", "bundled-target-intel-xeon-emerald-rapids"),
        ("Intel(R) Xeon(R) Processor", "bundled-target-intel-xeon-emerald-rapids"),
        ("Intel(R) Xeon(R) Processor, family 6, model 1", "bundled-target-intel-xeon-emerald-rapids"),
        ("AMD EPYC, family 25, model 1", "bundled-target-amd-epyc-milan"),
        ("AMD EPYC, family 25, model 17", "bundled-target-amd-epyc-genoa"),
        ("AMD EPYC", "bundled-target-amd-epyc-milan"),
        ("another", "bundled-target-amd-epyc-milan"),
        (None, "bundled-target-amd-epyc-milan"),
    ):
        assert profile_of(spec, cpu=cpu).name == name


def decode(rows: int, kept: int, joined: int = 0) -> StepShape:
    return StepShape(rows, rows, 1, kept, 120, rows, kept, joined)


def test_a_pass_takes_longer_by_the_rows_that_joined_until_they_are_no_longer_new() -> None:
    costs = true_costs().engines["target"]
    one = Contended(Clock(), costs)
    taken = [one.cost("decode", decode(4, 400 + 4 * k, 0 if k else 4)).seconds for k in range(60)]
    assert all(first > second for first, second in pairwise(taken[:8]))
    stated = costs.model.cost("decode", decode(4, 400)).seconds  # type: ignore[arg-type]
    correction = costs.corrections["decode"]
    assert taken[0] == pytest.approx((correction.factor(4) + correction.recent) * stated + correction.step_s)
    still = costs.model.cost("decode", decode(4, 400 + 4 * 59)).seconds  # type: ignore[arg-type]
    assert taken[59] == pytest.approx(correction.factor(4) * still + correction.step_s, rel=1e-5)
    one.cost("append", StepShape(4, 80, 24, 400, 120, 80))  # makes no row of the batch a new one
    assert one.cost("decode", decode(4, 400)).seconds == pytest.approx(
        correction.factor(4) * stated + correction.step_s
    )
    mixed = one.cost("decode", decode(4, 400, 1)).seconds  # a quarter of the batch is new
    assert mixed == pytest.approx((correction.factor(4) + correction.recent / 4) * stated + correction.step_s)
    assert one.cost("decode", decode(4, 400, 4)).seconds == pytest.approx(taken[0])


@pytest.mark.parametrize("slower", [2.0, 4.0, 50.0])
def test_passes_that_were_held_up_say_little_of_what_batches_cost(slower: float) -> None:
    """A twentieth of them, by however much: the mean would be off by a twentieth of that."""
    rng = np.random.default_rng(1)
    rows = np.repeat([1.0, 8.0, 64.0], 400)
    profile = 1e-3 * (1 + rows / 8)
    seconds = 1.2 * profile * np.where(rng.random(len(rows)) < 0.05, slower, 1.0)
    none = np.zeros(len(rows))
    found, _ = fit([Samples(seconds, profile, rows, none, np.zeros((len(rows), 2)), none, none)], CallFit())
    for size in (1, 8, 64):
        assert found.seconds(1.0, size) == pytest.approx(1.2, rel=0.035)


def test_passes_in_memory_that_is_new_do_not_make_their_size_dear() -> None:
    """As in short runs, where most passes of many rows are larger than all before them."""
    rows = np.repeat([1.0, 8.0, 64.0], 60)
    profile, grown = 1e-3 * (1 + rows / 8), np.where(rows == 64, np.arange(len(rows)) % 3 > 0, 0.0) * 500
    seconds, none = 1.2 * profile + 4e-6 * grown, np.zeros(len(rows))
    found, _ = fit([Samples(seconds, profile, rows, none, np.zeros((len(rows), 2)), none, grown)], CallFit())
    assert found.grown_s == pytest.approx(4e-6, rel=0.02)
    assert found.factor(64) == pytest.approx(1.2, rel=0.01)
    assert found.seconds(1e-3, 64, grown=500) == pytest.approx(1.2e-3 + 2e-3, rel=0.02)


def test_what_the_other_engine_takes_of_every_pass_is_told_from_its_share_of_it() -> None:
    """The first is most of a small pass, and little of a large one."""
    rows, shared = np.repeat([1.0, 8.0, 64.0], 60), np.tile([0.0, 0.5, 1.0], 60)
    profile, none = 1e-3 * (1 + rows / 8), np.zeros(len(rows))
    seconds = 1.2 * profile * (1 + 0.1 * shared) + 4e-4 * shared
    found, _ = fit([Samples(seconds, profile, rows, shared, np.zeros((len(rows), 2)), none, none)], CallFit())
    assert found.contention == pytest.approx(0.1, abs=0.01)
    assert found.contention_s == pytest.approx(4e-4, rel=0.05)
    assert found.seconds(1e-3, 1, shared=1.0) == pytest.approx(1.32e-3 + 4e-4, rel=0.01)


def test_append_passes_grow_beyond_the_largest_so_far() -> None:
    growth = Growth()
    assert [growth.of(*shape) for shape in ((2, 10), (1, 20), (3, 10), (1, 31), (2, 10))] == [20, 0, 10, 1, 0]
    clock = Clock()
    engine = Contended(clock, true_costs().engines["target"])
    first, again = (engine.cost("append", StepShape(4, 80, 24, 400, 120, 80)).seconds for _ in range(2))
    assert first - again == pytest.approx(TRUE["target", "append"].grown_s * 4 * 120)


def test_rows_that_joined_are_told_from_the_log(runs: list[MeasuredRun]) -> None:
    """As the simulated engine has them."""
    for run in runs:
        steps = pd.read_parquet(run.path / "steps.parquet").sort_values("t_start_s")
        for role, log in run.logs.items():
            mine, recency = steps[steps.engine == role], Recency()
            assert mine.joined.sum() > 10
            known = [
                recency.of(int(rows), int(joined))
                for rows, joined, append in zip(mine.rows, mine.joined, mine["append"], strict=True)
                if not append
            ]
            assert rows_new(log)[~log.append] == pytest.approx(known, abs=1e-9)


def test_a_pass_takes_longer_beside_one_of_the_other_engine() -> None:
    clock, costs = Clock(), true_costs().engines
    one, other = (Contended(clock, costs[role]) for role in ("draft", "target"))
    one.rivals, other.rivals = [other], [one]
    alone = one.cost("append", StepShape(4, 80, 24, 400, 120, 80)).seconds
    beside = other.cost("append", StepShape(4, 80, 24, 400, 120, 80)).seconds
    own = costs["target"].corrections["append"]
    stated = costs["target"].model.cost("append", StepShape(4, 80, 24, 400, 120, 80)).seconds  # type: ignore[arg-type]
    by_itself = own.seconds(stated, 4, grown=4 * 120)
    assert beside == pytest.approx(by_itself * (1 + own.contention) + own.contention_s)
    clock.call(2 * (alone + beside), 1, lambda number: None)
    clock.step()
    assert other.cost("append", StepShape(4, 80, 24, 400, 120, 80)).seconds == pytest.approx(own.seconds(stated, 4))


def test_the_log_says_how_long_engines_shared_the_machine(runs: list[MeasuredRun]) -> None:
    barrier, free = ({role: log.shared for role, log in run.logs.items()} for run in runs)
    assert all(((shared >= 0) & (shared <= 1)).all() for shared in (*barrier.values(), *free.values()))
    # Of one pair of engines, what one shares the other does too.
    for run in runs:
        shared_s = [float((log.shared * log.duration_s).sum()) for log in run.logs.values()]
        assert shared_s[0] == pytest.approx(shared_s[1], rel=1e-9)
    assert np.mean(free["draft"]) > 0


@pytest.mark.parametrize("shared", [(1.0, 1.0), (0.95, 1.0), (0.0, 0.02)])
def test_where_passes_hardly_differ_in_what_is_beside_them_nothing_is_said_of_it(shared: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    rows = np.repeat([1.0, 8.0, 64.0], 60)
    profile, none = 1e-3 * (1 + rows / 8), np.zeros(len(rows))
    seconds = (1.2 * profile + 3e-4) * rng.normal(1.0, 0.05, len(rows))
    beside = rng.uniform(*shared, len(rows))
    found, _ = fit([Samples(seconds, profile, rows, beside, np.zeros((len(rows), 2)), none, none)], CallFit())
    assert (found.contention, found.contention_s) == (0.0, 0.0)
    assert found.seconds(1e-3, 1) == pytest.approx(1.5e-3, rel=0.05)
