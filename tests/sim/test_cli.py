"""Claims about ``atts-sim`` as a whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

from atts_sim.cli import main, package_version

COMMANDS = ["replay", "sweep", "run", "report", "validate", "whatif"]


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
def test_a_missing_or_unknown_command_is_one_line_and_exits_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("atts-sim: ")
    assert err.endswith("see atts-sim --help\n")


def test_importing_the_simulator_loads_no_engine() -> None:
    probe = "import sys, atts_sim.cli; print(sorted({'torch', 'transformers', 'vllm'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
