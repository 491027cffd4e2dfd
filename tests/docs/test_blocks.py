"""The documentation's commands and programs are understood, and in the slow lane they run.

A page's blocks run in order in one folder of their own, which has a run of the bundled pair at runs/mine. A block that
begins with a file's name (`# mine.toml`) is that file.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from atts_runtime import cli as runtime
from atts_sim import cli as simulator
from tests.docs.blocks import ALL, PAGES, REASONS, ROOT, Block, blocks, unfenced

PARSERS = {"atts-runtime": runtime.build_parser, "atts-sim": simulator.build_parser}
_COMMAND = re.compile(r"(?:^|[\s(])(atts-runtime|atts-sim) ([^|;&>\n]*)", flags=re.MULTILINE)
RUN = [page for page in PAGES if any(b.why is None and b.language in ("sh", "python") for b in blocks(page))]
PATIENCE_S = 900
_FILE = re.compile(r"# ([\w-]+\.(?:py|toml))\n")


def named(language: str) -> list[Block]:
    return [block for block in ALL if block.language == language]


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    for program, rest in _COMMAND.findall(text.replace("\\\n", " ")):
        yield program, shlex.split(re.sub(r"(^|\s)#.*", "", rest))


def check(text: str) -> None:
    """Every command is one that the programs would take."""
    for program, arguments in commands(text):
        if any(word.startswith("$") for word in arguments):
            continue  # of a loop, and for the slow lane
        assert _taken(program, arguments), f"{program} {shlex.join(arguments)}"


def _taken(program: str, arguments: list[str]) -> bool:
    try:
        PARSERS[program]().parse_args(arguments)
    except SystemExit as error:
        return error.code == 0
    return True


def test_every_block_says_its_language_and_a_known_reason_where_it_is_not_run() -> None:
    for block in ALL:
        assert block.language in ("sh", "python", "toml", "json", "text"), block
        assert block.why is None or block.why in REASONS, f"{block}: {block.why}"


@pytest.mark.parametrize("block", named("sh"), ids=str)
def test_commands_are_understood(block: Block) -> None:
    check(block.body)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_indented_commands_are_understood(page: Path) -> None:
    check(
        "\n".join(re.findall(r"^    (atts-(?:runtime|sim) [^\[\n]*(?:\\\n.*)*)$", unfenced(page), flags=re.MULTILINE))
    )


@pytest.mark.parametrize("block", named("python"), ids=str)
def test_programs_compile(block: Block) -> None:
    compile(block.body, str(block), "exec")


@pytest.mark.parametrize("block", named("toml"), ids=str)
def test_toml_is_toml(block: Block) -> None:
    assert tomllib.loads(block.body)


@pytest.mark.parametrize("block", named("json"), ids=str)
def test_json_is_json(block: Block) -> None:
    for line in block.body.splitlines():
        assert json.loads(line)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the bundled pair."""
    path = tmp_path_factory.mktemp("recorded") / "mine"
    assert runtime.main(["run", "--questions", "4", "--chains", "4", "--out", str(path)]) == 0
    return path


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_blocks_run(page: Path, recorded: Path, tmp_path: Path) -> None:
    shutil.copytree(recorded, tmp_path / "runs" / "mine")
    for name in ("docs", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")  # commands write there
    for block in blocks(page):
        if (file := _FILE.match(block.body)) is not None:
            (tmp_path / file[1]).write_text(block.body)
            continue
        if block.why is not None or block.language not in ("sh", "python"):
            continue
        run(block, tmp_path)


@pytest.mark.vllm
@pytest.mark.parametrize("block", [block for block in ALL if block.why == "needs vLLM"], ids=str)
def test_blocks_that_need_vllm_run_where_it_is(block: Block, tmp_path: Path) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed (it wants an environment of its own: make test-vllm)")
    run(block, tmp_path)


def run(block: Block, folder: Path) -> None:
    """As a user would, in that folder, with this environment's programs; asserts that it succeeds."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    start = ["bash", "-euo", "pipefail", "-c"] if block.language == "sh" else [sys.executable, "-c"]
    done = subprocess.run(
        [*start, block.body], capture_output=True, text=True, cwd=folder, timeout=PATIENCE_S, check=False,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, f"{block}\n{block.body}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
