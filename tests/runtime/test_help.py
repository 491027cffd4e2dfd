"""Claims about ``--help`` and ``--print-completion`` of both commands."""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterator
from dataclasses import fields

import pytest

from atts_runtime import cli as runtime
from atts_runtime.commands.settings import GROUPS
from atts_runtime.config import RunConfig
from atts_runtime.control import POLICIES
from atts_sim import cli as simulator

Capture = pytest.CaptureFixture[str]
SILENT = (argparse.SUPPRESS, None, False)


def parsers() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for made in (runtime.build_parser(), simulator.build_parser()):
        yield made.prog, made
        (commands,) = (action for action in made._actions if isinstance(action, argparse._SubParsersAction))
        for name, parser in commands.choices.items():
            yield f"{made.prog} {name}", parser


COMMANDS = dict(parsers())


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_with_an_example_of_the_command_itself(command: str) -> None:
    epilog = COMMANDS[command].epilog or ""
    assert re.match(r"examples?:\s", epilog)
    assert re.search(rf"^\s*(examples?: )?{command}( |$)", epilog, flags=re.MULTILINE)
    assert epilog in COMMANDS[command].format_help()


@pytest.mark.parametrize("command", COMMANDS)
def test_an_example_is_understood(command: str) -> None:
    epilog = COMMANDS[command].epilog or ""
    program = command.split()[0]
    for arguments in re.findall(rf"{program} (\S.*?)(?:\s{{2,}}.*)?$", epilog, flags=re.MULTILINE):
        parser = COMMANDS[program]
        assert parser.parse_args(arguments.split()).command == arguments.split()[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_argument_says_what_it_is_and_its_default(command: str) -> None:
    for action in COMMANDS[command]._actions:
        if isinstance(action, argparse._SubParsersAction):
            continue
        assert action.help
        if not any(action.default is silent for silent in SILENT) and action.default != []:
            assert "%(default)s" in action.help, f"{action.dest} does not say its default"


@pytest.mark.parametrize("command", COMMANDS)
def test_json_and_debug_stand_together_in_a_group_of_output(command: str) -> None:
    if command in ("atts-runtime", "atts-sim"):
        return
    (output,) = (group for group in COMMANDS[command]._action_groups if group.title == "output")
    assert {"json", "debug"} <= {action.dest for action in output._group_actions}


@pytest.mark.parametrize("command", COMMANDS)
def test_usage_is_short_enough_to_read(command: str) -> None:
    assert len(COMMANDS[command].format_usage().splitlines()) <= 5


def test_every_setting_has_a_heading_and_says_its_default() -> None:
    named = [name for names in GROUPS.values() for name in names]
    assert len(named) == len(set(named))
    help_text = " ".join(COMMANDS["atts-runtime run"].format_help().split())
    for field in fields(RunConfig):
        flag = f"--{field.name.replace('_', '-')}"
        assert f"{flag} " in help_text
        if field.default is not None:
            assert f"(default: {field.default})" in help_text[help_text.index(f" {flag} ") :]


@pytest.mark.parametrize("program", ["atts-runtime", "atts-sim"])
@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_completion_script_is_printed_for_each_shell(program: str, shell: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        COMMANDS[program].parse_args(["--print-completion", shell])
    assert left.value.code == 0
    assert "sweep" in (script := capsys.readouterr().out) or "compare" in script


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["atts-runtime", "do"], {"doctor"}),
        (["atts-runtime", "run", "--policy", ""], set(POLICIES)),
        (["atts-runtime", "run", "--questions-in"], {"--questions-in-flight"}),
        (["atts-sim", "sweep", "gpu"], {"gpu-sizing"}),
    ],
)
def test_bash_completes(words: list[str], expected: set[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        COMMANDS[words[0]].parse_args(["--print-completion", "bash"])
    script = capsys.readouterr().out
    typed = " ".join(f"'{word}'" for word in words)
    ask = (
        f"COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; "
        f"$(complete -p {words[0]} | sed 's/.*-F \\([^ ]*\\).*/\\1/') {words[0]} '{words[-1]}' ''; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    assert expected <= {line.strip() for line in done.stdout.splitlines()}
