"""The argument parser of both command lines: errors of one line, help in groups, completion for shells."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

SHELLS = ("bash", "zsh", "tcsh")
_FILES, _FOLDERS = ("FILE", "TRACE", "STUDY"), ("DIR", "RUN")
"""Metavars of arguments that are completed by names of files, or of folders."""


class Help(argparse.HelpFormatter):
    """Examples stay as they are written; everything else is filled."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("example"):
            return "".join(f"{indent}{line}" for line in text.splitlines(keepends=True))
        return super()._fill_text(text, width, indent)


class OneLineParser(argparse.ArgumentParser):
    """Reports bad usage in one line; the usage text is what --help is for."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"formatter_class": Help, **options})

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def add_output(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """What every command has: ``--json`` and ``--debug``, in a group that is returned for more of the kind."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print one JSON object to stdout")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return group


def add_completion(parser: argparse.ArgumentParser, choices: Mapping[str, Sequence[str]]) -> None:
    """Add ``--print-completion SHELL``. `choices` are values to offer, by the name of the argument in the namespace."""

    class Print(argparse.Action):
        def __call__(self, parser: argparse.ArgumentParser, *call: Any, **options: Any) -> None:
            import shtab

            (shell,) = (value for value in call if value in SHELLS)
            for action in _actions(parser):
                if action.dest in choices:
                    action.choices = tuple(choices[action.dest])
                elif action.metavar in _FILES:
                    action.complete = shtab.FILE  # type: ignore[attr-defined] # where shtab looks for it
                elif action.metavar in _FOLDERS:
                    action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            print(shtab.complete(parser, shell))
            parser.exit(0)

    parser.add_argument(
        "--print-completion", action=Print, choices=SHELLS, metavar="SHELL", default=argparse.SUPPRESS,
        help=f"print a script that completes the command in {', '.join(SHELLS[:-1])} or {SHELLS[-1]}",
    )  # fmt: skip


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
