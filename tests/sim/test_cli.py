"""Claims about ``atts-sim`` before the simulator is there."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest

from atts_sim.cli import COMMANDS, main, package_version


def test_the_commands_are_those_of_the_contract() -> None:
    assert list(COMMANDS) == ["sweep", "run", "validate", "replay", "report"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_in_one_line_that_the_simulator_comes_later_and_exits_2(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"atts-sim {command}: ")
    assert "later release" in err


@pytest.mark.parametrize("command", COMMANDS)
def test_arguments_of_the_coming_simulator_give_the_same_answer(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, example = COMMANDS[command]
    assert main(shlex.split(example)[1:]) == 2
    assert "later release" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"atts-sim {command} " in capsys.readouterr().out.split("example", 1)[1]


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(f"    {command} " in out for command in COMMANDS)


def test_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"atts-sim {package_version()}\n"


@pytest.mark.parametrize("arguments", [[], ["simulate"]])
def test_a_missing_or_unknown_command_is_bad_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "atts-sim: error: " in capsys.readouterr().err


def test_importing_the_simulator_loads_no_engine() -> None:
    probe = "import sys, atts_sim.cli; print(sorted({'torch', 'transformers', 'vllm'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
