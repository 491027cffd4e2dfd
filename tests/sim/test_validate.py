"""Runs that simulations made are predicted; what differs from them is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atts_sim.cli import main
from atts_sim.measured import measured_run
from atts_sim.validate import Line, validate
from tests.sim.made_runs import make_run, true_costs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("validated")
    for policy in ("barrier", "async-marginal", "target-only"):
        for chains in (4, 8):
            make_run(path / f"{policy}-{chains}", policy, chains=chains)
    return path


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    status = main(["validate", *map(str, arguments), "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_the_costs_that_made_a_run_predict_it_exactly(folder: Path) -> None:
    runs = [measured_run(folder / name) for name in ("barrier-4", "async-marginal-8", "target-only-4")]
    found = validate(runs, true_costs(), tolerance=1e-9)
    assert found.holds
    for compared in found.compared:
        for line in compared.lines:
            assert line.error == pytest.approx(0.0, abs=1e-9) or line.error is None, line
    assert found.pairs == 1  # barrier and target-only, of the same size


def test_runs_are_predicted_from_others_and_the_verdict_holds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policies = ("barrier", "async-marginal", "target-only")
    status, found = told(
        capsys, *(folder / f"{p}-8" for p in policies), "--fit-on", *(folder / f"{p}-4" for p in policies)
    )
    assert status == 0
    assert found["verdict"] == "holds"
    assert len(found["runs"]) == 3
    assert found["order"] == {"pairs": 3, "wrong": []}
    assert found["not_modelled"] == []
    assert found["costs"]["engines"]["draft"]["decode"]["kind"] == "fitted"
    for run in found["runs"]:
        wall = run["figures"]["wall_s"]
        assert wall["error"] == pytest.approx(wall["predicted"] / wall["measured"] - 1, rel=1e-12)
        assert run["figures"]["takeovers"]["error"] in (0.0, None)  # replayed verdicts are the run's own


def test_without_a_fit_the_profiles_fall_short_and_the_exit_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = told(capsys, folder / "barrier-8")
    assert status == 1
    assert found["verdict"] == "off"
    assert found["runs"][0]["figures"]["wall_s"]["error"] < -0.1
    assert told(capsys, folder / "barrier-8", "--tolerance", "0.9")[0] == 0


def test_a_run_that_cannot_be_modelled_is_counted_and_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "half", "barrier")
    (tmp_path / "half" / "summary.json").unlink()
    _, found = told(capsys, folder / "barrier-8", tmp_path / "half", "--fit-on", folder / "barrier-4")
    assert [entry["run"] for entry in found["not_modelled"]] == [str(tmp_path / "half")]
    assert "is not over" in found["not_modelled"][0]["reason"]
    _, found = told(capsys, folder / "barrier-8", "--fit-on", folder / "target-only-4")
    assert "nothing says what a step of the draft engine costs" in found["not_modelled"][0]["reason"]


def test_a_run_of_other_models_is_not_predicted_with_these_costs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    make_run(other, "barrier", chains=8, temperature=0.5)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["models"]["draft"] = manifest["models"]["target"]
    (other / "manifest.json").write_text(json.dumps(manifest))
    mine, fit_on = folder / "barrier-8", ("--fit-on", folder / "barrier-4")
    for arguments, predicted, refused in (
        ((mine, other, *fit_on), mine, other), ((mine, other), mine, other), ((other, mine), other, mine),
    ):  # fmt: skip
        _, found = told(capsys, *arguments)
        assert [run["run"] for run in found["runs"]] == [str(predicted)]
        (entry,) = found["not_modelled"]
        assert entry["run"] == str(refused)
        assert "the costs are of another draft model than it ran" in entry["reason"]
    run = measured_run(mine)
    renamed = replace(run, specs={role: replace(spec, name="elsewhere") for role, spec in run.specs.items()})
    assert validate([renamed], true_costs(), tolerance=1e-9).holds


def test_costs_of_one_engine_for_both_roles_are_not_those_of_two(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = tmp_path / "one"
    make_run(one, "barrier", chains=8, draft="m", target="m")
    two = folder / "barrier-8"
    for runs, reason in (((two, one), "it had one engine for"), ((one, two), "it had two engines for")):
        _, found = told(capsys, *runs)
        assert [run["run"] for run in found["runs"]] == [str(runs[0])]
        (entry,) = found["not_modelled"]
        assert entry["run"] == str(runs[1])
        assert reason in entry["reason"]
    alone = measured_run(folder / "target-only-8")  # which has one role, so that one engine is all there is
    of_target = replace(true_costs(), engines={"draft": true_costs().engines["target"]}, one_engine=True)
    assert validate([alone], of_target, tolerance=1e-9).holds
    of_draft = replace(true_costs(), engines={"draft": true_costs().engines["draft"]}, one_engine=True)
    assert not validate([alone], of_draft).compared


def test_a_fitted_workload_predicts_too_and_says_how_well_it_fits(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "workload.json"
    arguments = (folder / "async-marginal-8", "--fit-on", folder / "async-marginal-4", folder / "barrier-4")
    _, found = told(capsys, *arguments, "--workload", "fitted", "--save", saved, "--tolerance", "0.5")
    assert {fit["name"] for fit in found["goodness"]} >= {"tokens of a draft", "turns of a chain", "right"}
    assert all(0 <= fit["distance"] <= 1 for fit in found["goodness"])
    status, again = told(capsys, folder / "async-marginal-8", "--workload", saved, "--tolerance", "0.9")
    assert (status, again["workload"], again["goodness"]) == (0, "fitted", [])


def test_the_table_shows_every_figure_and_the_verdict(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    fit_on = ["--fit-on", str(folder / "barrier-4"), str(folder / "async-marginal-4")]
    assert main(["validate", str(folder / "barrier-8"), *fit_on, "--workload", "fitted", "--tolerance", "0.9"]) == 0
    out = capsys.readouterr().out
    for name in ("wall_s *", "latency_p95_s *", "stall_s.barrier", "busy_s.draft", "contention", "KS distance"):
        assert name in out
    assert "1 of 1 runs within 90%" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/barrier-4", "--fit-on", "{}/barrier-4"], "fitted to and predicted"),
        (["{}/nowhere"], "is no folder"),
        (["{}/barrier-4", "--tolerance", "0"], "tolerance must be positive"),
        (["{}/barrier-4", "--tolerance", "nan"], "tolerance must be positive"),
        (["{}/barrier-4", "--workload", "fitted"], "give them with --fit-on"),
        (["{}/barrier-4", "--workload", "{}/none.json"], "cannot read"),
        (["{}/barrier-4", "--profile", "{}/none.toml"], "cannot be read"),
    ],
)
def test_bad_input_is_one_line_that_says_what_to_do(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["validate", *(argument.format(folder) for argument in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err


def test_policies_in_the_wrong_order_fail_the_verdict(folder: Path) -> None:
    runs = [measured_run(folder / name) for name in ("barrier-4", "target-only-4")]
    walls = [run.summary["wall_s"] for run in runs]
    swapped = [
        replace(run, summary={**run.summary, "wall_s": wall}) for run, wall in zip(runs, walls[::-1], strict=True)
    ]
    found = validate(swapped, true_costs(), tolerance=1e9)
    faster = min(swapped, key=lambda run: float(run.summary["wall_s"])).name
    slower = max(swapped, key=lambda run: float(run.summary["wall_s"])).name
    assert found.misordered == ((faster, slower),)
    assert not found.holds


def test_a_pair_of_policies_differs_in_nothing_else(folder: Path) -> None:
    barrier, alone = (measured_run(folder / name) for name in ("barrier-4", "target-only-4"))
    assert validate([barrier, alone], true_costs()).pairs == 1
    for changes in ({"seed": 1}, {"temperature": 0.5}, {"alpha": 0.3}, {"max_rows": 32}, {"task": "other"}):
        other = replace(alone, config=replace(alone.config, **changes))
        assert validate([barrier, other], true_costs()).pairs == 0, changes
    elsewhere = replace(alone, config=replace(alone.config, out="elsewhere"))
    assert validate([barrier, elsewhere], true_costs()).pairs == 1


def test_policies_of_one_name_that_differ_in_a_part_are_a_pair(folder: Path) -> None:
    run = measured_run(folder / "async-marginal-4")
    for part in ({"gate": "threshold"}, {"takeover": "resample"}, {"schedule": "barrier"}):
        other = replace(run, config=replace(run.config, **part))  # type: ignore[arg-type]
        found = validate([run, other], true_costs())
        assert not found.refused
        assert found.pairs == 1, part


def test_a_policy_of_one_model_is_a_pair_with_those_that_name_a_draft(folder: Path) -> None:
    run = measured_run(folder / "async-marginal-4")
    named = replace(run, config=replace(run.config, draft="small"))
    one_model = replace(run, config=replace(run.config, policy="self"))
    assert validate([named, one_model], true_costs()).pairs == 1
    assert validate([named, replace(run, config=replace(run.config, policy="barrier"))], true_costs()).pairs == 0


def test_repeats_are_compared_by_their_medians(folder: Path) -> None:
    run = measured_run(folder / "barrier-4")
    wall = float(run.summary["wall_s"])
    repeats = [replace(run, summary={**run.summary, "wall_s": factor * wall}) for factor in (1.0, 5.0, 1.1)]
    found = validate([*repeats, measured_run(folder / "barrier-8")], true_costs(), tolerance=0.1)
    assert [len(compared.repeats) for compared in found.compared] == [3, 1]
    line = next(line for line in found.compared[0].lines if line.name == "wall_s")
    assert line.measured == pytest.approx(1.1 * wall)
    assert line.predicted == pytest.approx(wall)
    assert found.pairs == 0


def test_an_error_is_relative_but_for_shares() -> None:
    assert Line("wall_s", "s", 2.0, 3.0).error == 0.5
    assert Line("takeover_rate", "1", 0.2, 0.3).error == pytest.approx(0.1)
    assert Line("stall_s", "s", 0.0, 3.0).error is None
    assert Line("r", "ratio", None, 3.0).error is None
