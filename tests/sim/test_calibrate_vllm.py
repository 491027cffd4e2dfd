"""Costs of runs under vLLM, which no profile is of, come from the runs' own steps and calls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atts_runtime.errors import InputError
from atts_sim.calibrate import calibrate, profile_of, stated_costs
from atts_sim.cli import main
from atts_sim.cost import StepShape
from atts_sim.costs_store import save_costs
from atts_sim.measured import MeasuredRun, measured_run
from atts_sim.validate import validate
from tests.sim.made_runs import HANDLING, VLLM_SENDING, make_run, specs, vllm_costs, vllm_run

POLICIES = ("barrier", "async-marginal", "target-only")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[MeasuredRun]:
    folder = tmp_path_factory.mktemp("made")
    return [vllm_run(folder / f"{policy}-{m}", policy, chains=m) for policy in POLICIES for m in (4, 8)]


def test_steps_and_sending_are_recovered_from_the_runs_that_they_made(runs: list[MeasuredRun]) -> None:
    costs, true = calibrate(runs), vllm_costs()
    assert costs.handling.latency_s == pytest.approx(HANDLING.latency_s, rel=1e-6)
    assert [engine.wake_s for engine in costs.engines.values()] == [0.0, 0.0]  # that is part of sending
    assert costs.sending.call_s == pytest.approx(VLLM_SENDING.call_s, abs=1e-4)
    assert costs.sending.way_s == pytest.approx(VLLM_SENDING.way_s, abs=2e-4)
    for role, engine in true.engines.items():
        assert costs.engines[role].per_call is None
        for phase, shape in (
            ("decode", StepShape(6, 6, 1, 900, 150, 6)),
            ("append", StepShape(3, 60, 20, 500, 170, 3)),
        ):
            stated = costs.engines[role].model.cost(phase, shape).seconds  # type: ignore[arg-type]
            found = costs.engines[role].corrections[phase].seconds(stated, shape.rows)  # type: ignore[index]
            expected = engine.model.cost(phase, shape).seconds  # type: ignore[arg-type]
            few = 0.25 if phase == "append" else 0.1  # appends differ in shape, and there are not many
            assert found == pytest.approx(expected, rel=few), (role, phase)


def test_a_run_of_more_chains_is_predicted(runs: list[MeasuredRun], tmp_path: Path) -> None:
    more = [vllm_run(tmp_path / policy, policy, chains=16) for policy in POLICIES]
    for compared in validate(more, calibrate(runs)).compared:
        wall = compared.lines[0]
        assert wall.error == pytest.approx(0, abs=0.08), compared.run.name


def test_a_pass_after_which_the_engine_is_idle_ends_as_the_others_do(runs: list[MeasuredRun]) -> None:
    """What the driver does until it sends the next call is no time of the engine's."""
    for run in runs:
        for log in run.logs.values():
            assert (log.period_s - log.duration_s).max() < 1e-9


def test_runs_of_two_engines_are_not_fitted_together(runs: list[MeasuredRun], tmp_path: Path) -> None:
    make_run(tmp_path / "run", "barrier")
    with pytest.raises(InputError, match="another engine than"):
        calibrate([*runs, measured_run(tmp_path / "run")])


def test_costs_of_one_engine_are_not_taken_for_runs_of_another(runs: list[MeasuredRun], tmp_path: Path) -> None:
    make_run(tmp_path / "run", "barrier")
    found = validate([measured_run(tmp_path / "run")], calibrate(runs))
    assert not found.compared
    assert found.refused[0][1] == "the costs are of engine vllm, not of transformers; fit on runs of that engine"


def test_they_are_no_costs_for_a_study(runs: list[MeasuredRun], tmp_path: Path) -> None:
    """Which names engine profiles."""
    with pytest.raises(InputError, match="correct no engine profile"):
        save_costs(calibrate(runs), [run.name for run in runs], tmp_path / "costs.json")


def test_without_runs_to_fit_to_nothing_is_known_of_vllm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"no engine profile of vllm is of .*--fit-on"):
        stated_costs(specs(), engine="vllm")
    assert profile_of(specs()["draft"]).engine == "transformers"
    make_run(tmp_path / "run", "barrier", engine="vllm")
    assert main(["validate", str(tmp_path / "run")]) == 2
    assert "--fit-on" in capsys.readouterr().err


def test_a_device_that_nobody_knows_is_asked_for(tmp_path: Path) -> None:
    make_run(tmp_path / "run", "barrier", engine="vllm")
    summary = tmp_path / "run" / "summary.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"intensity": None}))
    with pytest.raises(InputError, match="--hardware PROFILE"):
        calibrate([measured_run(tmp_path / "run")])


def test_too_few_steps_say_nothing(tmp_path: Path) -> None:
    run = vllm_run(tmp_path / "run", "target-only", chains=1, questions=1)
    for name in ("start_s", "duration_s", "period_s", "shared", "calls", "append", "shapes"):
        object.__setattr__(run.logs["target"], name, getattr(run.logs["target"], name)[:5])
    with pytest.raises(InputError, match="too few steps of"):
        calibrate([run])
