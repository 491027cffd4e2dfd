"""What can be wrong with a study is one line at its end that says how to mend it, and status 2."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from atts_sim.cli import main
from tests.sim.made_studies import H100, made_trace, study_text

TABLES = ("study", "workload", "engines", "search", "objective")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(study_text(made_trace(tmp_path), "[sweep]\nalpha = [0.1, 0.4]\n", engines=H100))
    return path


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (["sweep.polcy=['barrier']"], "unknown parameter 'polcy'; did you mean 'policy'?"),
        (["workload.kindd=replay"], "did you mean 'workload.kind'?"),
        (["alpha=1.5"], "alpha must lie strictly between 0 and 1, got 1.5"),
        (["engines.target.tp=0"], "engines.target.tp must be a whole number above 0, got 0"),
        (["engines.target.model=qwq-32"], "no model 'qwq-32'; did you mean 'qwq-32b'? There are bundled-draft"),
        (["engines.hardware=nvidia-h100"], "no hardware profile 'nvidia-h100'; did you mean 'nvidia-h100-80gb-sxm'?"),
        (["engines.target.tp=1", "engines.memory_share=0.5"], "exceed 50% of 1 x nvidia-h100-80gb-sxm by 23.8 GiB"),
        (["workload.arrivals=poisson:0"], "an arrival rate must be positive and finite"),
        (["workload.arrivals=poisson:1"], "async-marginal begins with the first segments of all questions"),
        (["workload.arrivals=trace:none.txt", "policy=barrier"], "cannot read times of arrival from"),
        (["workload.path=nowhere"], "nowhere does not exist; name a run directory"),
        (["workload.path=empty.events.parquet"], "empty.events.parquet is empty"),
        (["workload.path=empty"], "empty has no chain that is over"),
        (["chains=9"], "chains = 9, but the recording has 4"),
        *(([f"{table}=5"], f"--set: '{table}' must be a table, [{table}]") for table in TABLES),
        (["sweep=5"], "--set: unknown parameter 'sweep'"),
        (["engines=x", "engines.target.tp=2"], "--set: 'engines' must be a table, [engines]"),
        (["seed=9223372036854775808"], "seed must fit into 64 bits, got 9223372036854775808"),
        (
            ["engines.kv_budget_tokens=100000000000000000000"],
            "engines.kv_budget_tokens must be at most 9007199254740992",
        ),
        (["workload.path=text.events.parquet"], "has something other than numbers in column tokens"),
    ],
)
def test_it_is_one_line_and_status_2(
    sets: list[str], says: str, study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = study.parent
    monkeypatch.chdir(folder)
    pd.read_parquet(folder / "made.events.parquet").iloc[:0].to_parquet(folder / "empty.events.parquet")
    pd.read_parquet(folder / "made.events.parquet").assign(tokens="x").to_parquet(folder / "text.events.parquet")
    shutil.copy(folder / "made.samples.parquet", folder / "text.samples.parquet")
    (folder / "empty").mkdir()
    for name in ("config.toml", "chains.jsonl"):
        (folder / "empty" / name).touch()
    command = ["sweep", str(study), "--out", str(folder / "out"), "--jobs", "1"]
    assert main(command + [word for value in sets for word in ("--set", value)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("atts-sim sweep: ")
    assert says in err


def test_the_largest_whole_numbers_have_their_place_in_the_table(study: Path) -> None:
    command = ["sweep", str(study), "--out", str(study.parent / "out"), "--jobs", "1", "--no-report"]
    most = {"seed": 2**63 - 1, "questions_in_flight": 2**63 - 1, "engines.draft.tp": 2**53, "engines.target.tp": 2**53}
    assert main(command + [word for name, value in most.items() for word in ("--set", f"{name}={value}")]) == 0
    table = pd.read_parquet(study.parent / "out" / "results.parquet")
    assert set(table["devices"]) == {2**54}
    assert set(table["settings.seed"]) == {2**63 - 1}


def test_an_overloaded_rate_has_a_verdict_and_no_settings(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", str(study), "--out", str(study.parent / "out"), "--jobs", "1", "--no-report"]
    assert main([*command, "--set", "workload.arrivals=poisson:1e6", "--set", "policy=barrier"]) == 1
    assert "every point is saturated, the least at a load of" in capsys.readouterr().err
    table = pd.read_parquet(study.parent / "out" / "results.parquet")
    assert set(table["verdict"]) == {"saturated"}
    assert table["latency_s.p95"].isna().all()
