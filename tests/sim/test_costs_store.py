"""What engines cost in runs, kept in a file: a study with it predicts what `validate` does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atts_runtime.errors import InputError
from atts_sim.calibrate import calibrate
from atts_sim.cli import main
from atts_sim.costs_store import load_costs
from atts_sim.devices import engine_profile, model_spec
from atts_sim.measured import measured_run
from atts_sim.point import Points
from atts_sim.row import Row
from atts_sim.study import parse_study
from tests.sim.made_runs import make_run

PROFILES = {role: f"bundled-{role}-amd-epyc-milan" for role in ("draft", "target")}
ENGINES = "\n".join(f'{role}.profile = "{name}"' for role, name in PROFILES.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and costs and workload as `atts-sim validate` writes them."""
    folder = tmp_path_factory.mktemp("costs")
    make_run(folder / "run", "barrier", chains=6)
    saved = ["--save-costs", str(folder / "costs.json"), "--save", str(folder / "workload.json")]
    main(["validate", str(folder / "run"), *saved, "--tolerance", "0.9"])
    return folder


def row_of(folder: Path, engines: str = ENGINES, costs: str = "costs.json") -> Row:
    text = "[workload]\nkind = 'replay'\npath = 'run'\n[settings]\npolicy = 'barrier'\nalpha = 0.4\n"
    text += f"[engines]\n{engines}\ncosts = '{costs}'\n"
    return Points(parse_study(text, folder)).row(0, {})


def test_a_study_with_the_costs_predicts_what_validate_does(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(folder / "same", "barrier", chains=6)
    main(["validate", str(folder / "run"), "--fit-on", str(folder / "same"), "--json"])
    figures = json.loads(capsys.readouterr().out)["runs"][0]["figures"]
    row = row_of(folder)
    assert row.error is None
    assert row.figures["makespan_s"] == pytest.approx(figures["wall_s"]["predicted"], rel=1e-9)
    assert row.figures["latency_s.p95"] == pytest.approx(figures["latency_p95_s"]["predicted"], rel=1e-9)
    assert any("corrected by runs (run)" in source for source in row.sources)


def test_costs_come_back_as_they_were_fitted(folder: Path) -> None:
    fitted, saved = calibrate([measured_run(folder / "run")]), load_costs(folder / "costs.json")
    assert (saved.handling, saved.sources) == (fitted.handling, ("run",))
    assert saved.handling.latency_s > saved.handling.each_s > 0
    for role, name in PROFILES.items():
        profile = engine_profile(name)
        back = saved.of(role).costs(profile, model_spec(profile.model))
        assert back.per_call == fitted.engines[role].per_call
        assert back.wake_s == fitted.engines[role].wake_s > 0
        assert back.corrections == fitted.engines[role].corrections


def test_costs_bring_the_shipped_profiles_that_they_correct(folder: Path) -> None:
    others = ENGINES.replace("amd-epyc-milan", "intel-xeon-emerald-rapids")
    assert row_of(folder, others).figures == row_of(folder).figures


def test_costs_of_another_engine_are_refused(folder: Path) -> None:
    data = json.loads((folder / "costs.json").read_text())
    data["engines"]["target"]["profile"] = "my-own"
    (folder / "own.json").write_text(json.dumps(data))
    error = row_of(folder, costs="own.json").error
    assert error == f"the costs were fitted beside engine profile my-own, not {PROFILES['target']}"
    analytic = "hardware = 'nvidia-h100-80gb-sxm'\ndtype = 'bfloat16'\nmodel = 'qwen2.5-7b-instruct'"
    error = row_of(folder, analytic).error
    assert error == "engines.costs corrects engine profiles; give engines.draft.profile, or leave it out"
    make_run(folder / "alone", "target-only", chains=4)
    main(["validate", str(folder / "alone"), "--save-costs", str(folder / "alone.json")])
    error = row_of(folder, costs="alone.json").error
    assert error is not None
    assert "say nothing of the draft engine" in error


def test_costs_beside_step_times_that_were_measured_anew_are_refused(folder: Path) -> None:
    profile = engine_profile(PROFILES["target"])
    mfu = profile.numbers["decode.mfu"]
    anew = replace(profile, numbers=profile.numbers | {"decode.mfu": replace(mfu, value=0.9 * mfu.value)})
    fitted = load_costs(folder / "costs.json").of("target")
    assert fitted.costs(profile, model_spec(profile.model)).corrections == fitted.corrections
    for other in (anew, replace(profile, padding=replace(profile.padding, row_stops=()))):
        with pytest.raises(InputError, match="other step times than those that the costs correct; fit them again"):
            fitted.costs(other, model_spec(other.model))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data.pop("engines"),
        lambda data: data.update(engines={}),
        lambda data: data["handling"].update(latency_s=-1),
        lambda data: data["handling"].update(more=1.0),
        lambda data: data["handling"].pop("each_s"),
        lambda data: data["engines"]["draft"].update(wake_s=float("nan")),
        lambda data: data["engines"]["draft"].pop("wake_s"),
        lambda data: data["engines"]["draft"]["corrections"]["append"]["factors"].pop(),
        lambda data: data["engines"]["draft"]["corrections"]["append"].update(factors=[0.0] * 9),
        lambda data: data["engines"]["target"]["calls"]["generate"].update(more=1.0),
        lambda data: data["engines"]["target"]["corrections"].update(decode=None),
        lambda data: data.update(format="atts-fitted-workload/3"),
    ],
)
def test_a_spoiled_file_is_refused(folder: Path, tmp_path: Path, spoil: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads((folder / "costs.json").read_text())
    spoil(data)
    (tmp_path / "spoiled.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match=r"file of fitted costs.*; fit them again with atts-sim validate --save-costs"):
        load_costs(tmp_path / "spoiled.json")
