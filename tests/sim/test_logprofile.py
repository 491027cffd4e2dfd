"""Engine profiles that runs under vLLM make, and studies that name them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from atts_runtime.errors import InputError
from atts_runtime.profiler.engineprofile import EngineProfile
from atts_sim.calibrate import calibrate
from atts_sim.cli import main
from atts_sim.cost import StepShape
from atts_sim.devices import device
from atts_sim.logprofile import profiles_of
from atts_sim.measured import MeasuredRun, measured_run
from atts_sim.validate import validate
from tests.sim.made_runs import make_run, specs, vllm_costs, vllm_run

OPEN = {"max_rows": None, "kv_budget_tokens": None}
SHAPES = (("decode", StepShape(6, 6, 1, 900, 150, 6)), ("append", StepShape(3, 60, 20, 500, 170, 3)))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[MeasuredRun]:
    folder = tmp_path_factory.mktemp("made")
    return [vllm_run(folder / f"{p}-{m}", p, chains=m) for p in ("barrier", "async-marginal") for m in (4, 8)]


@pytest.fixture(scope="module")
def files(runs: list[MeasuredRun], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Written by the command, by role."""
    folder = tmp_path_factory.mktemp("profiles")
    paths = [str(run.path) for run in runs]
    assert main(["validate", *paths, "--save-profiles", str(folder)]) == 0
    return {role: folder / f"bundled-{role}-vllm-made-up.toml" for role in ("draft", "target")}


def test_a_profile_says_what_steps_cost_where_it_was_measured_and_how_well(files: dict[str, Path]) -> None:
    true = vllm_costs()
    for role, file in files.items():
        profile = EngineProfile.from_toml(file)
        assert (profile.engine, profile.model, profile.hardware) == ("vllm", f"bundled/{role}", "made-up")
        assert (profile.dtype, profile.measured_on, profile.threads) == ("float32", "2026-01-01", 1)
        assert profile.numbers["peak.flops_per_s"].kind == "fake"
        assert profile.calls("generate") is None
        for phase, shape in SHAPES:
            expected = true.engines[role].model.cost(phase, shape).seconds  # type: ignore[arg-type]
            found = profile.step_model(specs()[role]).cost(phase, shape)  # type: ignore[arg-type]
            assert found.inside
            assert found.seconds == pytest.approx(expected, rel=0.2), (role, phase)
            fitted, held_out = profile.residuals(phase)  # type: ignore[arg-type]
            assert fitted.points == held_out.points > 10
            assert held_out.median < 0.2


def test_a_study_takes_it_and_batches_as_vllm_does(files: dict[str, Path]) -> None:
    found = device("target", {"engines.target.profile": str(files["target"])}, OPEN)
    assert found.spec.paged is not None
    assert found.spec.per_call is None
    assert "measured on 2026-01-01" in found.told


def test_runs_are_validated_with_it_in_place_of_their_own_steps(
    runs: list[MeasuredRun], files: dict[str, Path], tmp_path: Path
) -> None:
    profiles = [EngineProfile.from_toml(file) for file in files.values()]
    more = vllm_run(tmp_path / "more", "barrier", chains=16)
    (compared,) = validate([more], calibrate(runs, profiles)).compared
    assert compared.lines[0].error == pytest.approx(0, abs=0.1)


def test_its_model_may_be_named_where_it_is_none_of_those_shipped(files: dict[str, Path], tmp_path: Path) -> None:
    text = files["target"].read_text().replace('model = "bundled/target"', 'model = "mine"')
    mine = tmp_path / "mine.toml"
    mine.write_text(text)
    options = {"engines.target.profile": str(mine)}
    with pytest.raises(InputError, match="no model 'mine'"):
        device("target", options, OPEN)
    found = device("target", options | {"engines.target.model": "bundled-target"}, OPEN).steps.spec
    assert replace(found, name="") == replace(specs()["target"], name="")
    with pytest.raises(InputError, match=r"is of mine with .* parameters, but"):
        device("target", options | {"engines.target.model": "bundled-draft"}, OPEN)


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
def test_what_cannot_be_a_profile_is_refused(engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "run", "barrier", engine=engine)
    assert main(["validate", str(tmp_path / "run"), "--save-profiles", str(tmp_path / "profiles")]) == 2
    told = {"vllm": "only run of the draft engine", "transformers": "make its profile with atts-runtime profile"}
    assert told[engine] in capsys.readouterr().err
    assert not (tmp_path / "profiles").exists()


def test_models_that_are_alike_have_profiles_of_their_own(
    runs: list[MeasuredRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atts_sim.logprofile.shipped_name", lambda spec: "twins")
    assert [of.name for of in profiles_of(runs)] == ["twins-vllm-made-up-draft", "twins-vllm-made-up-target"]


def test_runs_of_two_devices_are_not_one(runs: list[MeasuredRun]) -> None:
    summary = json.loads(json.dumps(runs[-1].summary))
    for engine in summary["intensity"]["engines"].values():
        engine["hardware"]["threads"] = 2
    with pytest.raises(InputError, match="another device"):
        profiles_of([*runs[:-1], replace(runs[-1], summary=summary)])


def test_of_a_published_trace_no_profile_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "x.events.parquet"
    trace.touch()
    assert main(["validate", str(trace), "--save-profiles", str(tmp_path)]) == 2
    assert "--save-profiles" in capsys.readouterr().err


def test_runs_without_a_device_are_refused(runs: list[MeasuredRun], tmp_path: Path) -> None:
    made_runs = []
    for name in ("a", "b"):
        make_run(tmp_path / name, "barrier", engine="vllm")
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        summary["intensity"] = None
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
        made_runs.append(measured_run(tmp_path / name))
    with pytest.raises(InputError, match="--hardware PROFILE"):
        profiles_of(made_runs)
