"""Policies by the command line: the list, comparisons of all of them, files and gates of one's own, what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atts_runtime.cli import main
from atts_runtime.control.registry import ACTIONS, GATES, PLUGINS, POLICIES, SCHEDULES, STOPS, VOTES, load_plugins
from atts_runtime.front import dominated
from atts_sim import cli as simulator
from tests.docs.blocks import ROOT, blocks
from tests.runtime.test_cli import SMALL, Capture, Use, mistake, only_mistake, use
from tests.sim.made_runs import make_run

__all__ = ["use"]

OWN_GATE = next(b.body for b in blocks(ROOT / "docs" / "policies.md") if b.body.startswith("# steady.py"))


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The gate of docs/policies.md as a file; forgotten afterwards."""
    monkeypatch.delenv(PLUGINS, raising=False)
    monkeypatch.setitem(os.environ, PLUGINS, "")
    path = tmp_path / "steady.py"
    path.write_text(OWN_GATE)
    yield path
    GATES.pop("steady", None)


def test_every_policy_and_part_is_listed_in_a_line(capsys: Capture) -> None:
    assert main(["policies"]) == 0
    out = capsys.readouterr().out
    names = [line.split()[0] for line in out.splitlines() if line and not line.startswith(" ")]
    for known in (POLICIES, GATES, ACTIONS, SCHEDULES, STOPS, VOTES):
        assert set(known) <= set(names)


def test_the_list_for_programs_has_the_papers(capsys: Capture) -> None:
    assert main(["policies", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [policy["name"] for policy in told["policies"]] == list(POLICIES)
    papers = {policy["name"]: policy["paper"] for policy in told["policies"]}
    assert all(papers[name] for name in POLICIES if name not in ("target-only", "draft-only"))
    assert {part["name"] for part in told["parts"]["gate"]} == set(GATES)


def test_all_policies_are_compared_with_the_first(use: Use, capsys: Capture) -> None:
    use()
    assert main(["compare", *SMALL, "--policies", "all", "--out", "study", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["policies"]
    assert [row["policy"] for row in rows] == list(POLICIES)
    assert [row["dominated_by"] for row in rows] == dominated(rows)
    assert rows[0]["mean_chain_difference"] is None
    for row in rows[1:]:
        for name in ("mean_chain", "voted"):
            told = row[f"{name}_difference"]
            assert told["low"] <= told["mean"] <= told["high"]
            assert told["mean"] == pytest.approx(row["accuracy"][name] - rows[0]["accuracy"][name], abs=1e-12)
            assert (told["verdict"] == "lossless") == (-told["margin"] < told["low"] <= 0)
        written = row["tokens"]["draft"] + row["tokens"]["takeover"]
        own = written if row["parts"]["one_model"] else row["tokens"]["takeover"]
        assert row["target_tokens"] == own
        assert row["target_token_share"] == pytest.approx(own / written)
    picture = Path("study/front.svg").read_text()
    assert all(f">{policy}<" in picture for policy in POLICIES)


def test_the_table_of_many_says_who_is_dominated(use: Use, capsys: Capture) -> None:
    use()
    assert main(["compare", *SMALL, "--policies", "all", "--out", "study"]) == 0
    out = capsys.readouterr().out
    rows = json.loads(Path("study/compare.json").read_text())
    front = ", ".join(row["policy"] for row in rows if not row["dominated_by"])
    assert f"the target's tokens: {front}." in out
    for row in rows:
        assert (f"Dominated: {row['policy']}," in out) == bool(row["dominated_by"])


def test_a_policy_is_dominated_by_one_that_is_no_worse_in_anything() -> None:
    def row(name: str, voted: float, wall_s: float, takeover: int) -> dict[str, Any]:
        return {"policy": name, "accuracy": {"voted": voted}, "wall_s": wall_s, "target_tokens": takeover}

    rows = [row("a", 1.0, 9.0, 9), row("b", 0.9, 2.0, 2), row("c", 0.9, 3.0, 2), row("d", 0.9, 2.0, 2)]
    assert dominated(rows) == [[], [], ["b", "d"], []]


def test_a_file_of_settings_is_a_policy(use: Use, capsys: Capture) -> None:
    use()
    Path("mine.toml").write_text(
        'policy = "async-marginal"\ngate = "threshold"\nthreshold = 1.5\nvote = "confidence"\n'
    )
    assert main(["compare", *SMALL, "--policies", "draft-only,mine.toml", "--out", "study", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["policies"]
    assert [row["policy"] for row in rows] == ["draft-only", "mine"]
    assert rows[1]["parts"] | {"gate": "threshold", "vote": "confidence"} == rows[1]["parts"]
    records = [json.loads(line) for line in Path("study/mine-0/chains.jsonl").read_text().splitlines()]
    scores = [call for record in records for call in record["calls"] if call["kind"] == "score"]
    assert all(call["rejected"] == (call["ell"] > 1.5) for call in scores)
    assert all(record["weight"] is not None for record in records if record["answer"] is not None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('gate = "gut"', "unknown gate 'gut'; choose one of open, shut"),
        ('chains = 3', "mine.toml sets chains, which no policy is made of; give it as a flag"),
        ('policy = "best-of-n"\nearly_stop = "majority"', "counts votes, which vote best does not"),
        ("gate = [", "is not valid TOML"),
    ],
)  # fmt: skip
def test_a_file_that_makes_no_policy_is_refused(text: str, said: str, use: Use, capsys: Capture) -> None:
    Path("mine.toml").write_text(text)
    assert said in only_mistake(capsys, "--policies", "draft-only,mine.toml", command="compare")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gate", "gut"], "unknown gate 'gut'"),
        (["--policy", "fork", "--chains", "1"], "it needs at least 2, got chains = 1"),
        (["--policy", "barrier", "--action", "fork"], "gate worst judges one segment a chain and turn"),
        (["--policy", "budget", "--action", "redraft"], "gate budget judges one segment a chain and turn"),
        (["--action", "resample", "--takeover", "continue"], "contradict each other; leave one out"),
        (["--policy", "self", "--draft", "small"], "self has one model, the target, in both roles; leave draft out"),
        (["--token-budget", "47"], "token_budget 47 is less than one segment may take, 48 tokens; raise it"),
        (["--deadline-s", "0"], "deadline_s must be positive"),
        (["--threshold", "nan"], "threshold must be positive"),
        (["--fork-width", "0"], "fork_width must be at least 1"),
        (["--beta-level", "0.5"], "beta_level must lie strictly between 0.5 and 1"),
        (["--cues", "wait,,"], "cues must be words, none of them empty"),
        (["--plugin", "none.py"], "cannot read plugin"),
    ],
)
def test_options_that_contradict_are_refused_before_anything_loads(
    arguments: list[str], said: str, use: Use, capsys: Capture
) -> None:
    assert said in only_mistake(capsys, *arguments)


def test_a_margin_and_a_budget_that_do_not_fit_are_refused(use: Use, capsys: Capture) -> None:
    use()
    assert "margin must lie strictly between 0 and 1" in only_mistake(capsys, "--margin", "0", command="compare")
    said = mistake(capsys, *SMALL, "--policy", "budget", "--budget", "3", "--kv-budget-tokens", "4000")
    assert said.startswith("a budget of 3 takeovers needs ")
    assert ": 2 fit; lower budget, turns or the segments' lengths" in said


def test_the_documented_gate_runs_under_both_programs(steady: Path, use: Use, capsys: Capture) -> None:
    assert len(OWN_GATE.strip().splitlines()) <= 26  # "in 20 lines", blank ones and the file's name beside
    use()
    own = ["--plugin", str(steady), "--gate", "steady", "--threshold", "0.3", "--takeover", "continue"]
    assert main(["run", *SMALL, *own, "--out", "runs/steady", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["parts"]["gate"] == "steady"
    assert 0 < summary["takeover_rate"] < 1
    study = ["policy-comparison", "--plugin", str(steady), "--set", "workload.path=runs/steady"]
    settings = ["--set", "gate=steady", "--set", "threshold=0.3", "--set", "policy=async-marginal"]
    assert simulator.main(["run", *study, *settings, "--json"]) == 0
    simulated = json.loads(capsys.readouterr().out)
    assert simulated["figures"]["takeover_rate"] == pytest.approx(summary["takeover_rate"])
    assert simulated["figures"]["accuracy"] == pytest.approx(summary["accuracy"]["mean_chain"])


@pytest.mark.slow
def test_processes_of_a_sweep_know_the_gate(steady: Path, use: Use, capsys: Capture) -> None:
    use()
    assert main(["run", *SMALL, "--out", "runs/mine", "--takeover", "continue"]) == 0
    study = ["policy-comparison", "--plugin", str(steady), "--set", "workload.path=runs/mine", "--set", "gate=steady"]
    two = ["--set", 'sweep.policy=["async-marginal"]', "--jobs", "2", "--no-report", "--out", "sweeps/steady"]
    assert simulator.main(["sweep", *study, *two]) == 0
    assert 'gate = "steady"' in Path("sweeps/steady/best.toml").read_text()


def test_a_gate_is_not_found_without_its_file_and_a_broken_file_says_why(
    steady: Path, use: Use, capsys: Capture
) -> None:
    said = only_mistake(capsys, "--gate", "steady")
    assert "unknown gate 'steady'" in said
    assert said.strip().endswith("--plugin FILE brings in one of your own")
    steady.write_text("1 / 0\n")
    assert "failed: ZeroDivisionError: division by zero" in only_mistake(capsys, "--plugin", str(steady))
    steady.write_text(OWN_GATE.replace('"steady"', '"marginal"'))
    assert "a gate named 'marginal' exists" in only_mistake(capsys, "--plugin", str(steady))


def test_validate_simulates_a_run_of_the_gate(steady: Path, tmp_path: Path, capsys: Capture) -> None:
    load_plugins([str(steady)])
    make_run(tmp_path / "run", "async-marginal", gate="steady", threshold=0.3)
    GATES.pop("steady")
    assert simulator.main(["validate", str(tmp_path / "run"), "--plugin", str(steady), "--json"]) in (0, 1)
    told = json.loads(capsys.readouterr().out)
    assert [run["run"] for run in told["runs"]] == [str(tmp_path / "run")]


def test_a_gate_that_fails_says_what_and_how_to_see_where(steady: Path, use: Use, capsys: Capture) -> None:
    use()
    assert main(["run", *SMALL, "--out", "runs/mine", "--takeover", "continue"]) == 0
    capsys.readouterr()
    steady.write_text(OWN_GATE.replace("segment.chain", "segment.question"))
    failed = "AttributeError: 'Segment' object has no attribute 'question' (--debug shows where)"
    own = ["--plugin", str(steady), "--gate", "steady"]
    assert main(["run", *SMALL, *own, "--out", "runs/broken"]) == 1
    assert capsys.readouterr().err.endswith(f"atts-runtime run: {failed}\n")
    study = ["policy-comparison", "--set", "workload.path=runs/mine", "--set", "policy=async-marginal"]
    assert simulator.main(["run", *study, "--set", "gate=steady", "--plugin", str(steady)]) == 1
    assert capsys.readouterr().err == f"atts-sim run: {failed}\n"
