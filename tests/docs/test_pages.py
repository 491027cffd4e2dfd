"""What the pages say of the program is so: messages, columns, schemas, settings."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest

from atts_runtime.cli import main
from atts_runtime.profiler.engineprofile import shipped_engines
from atts_sim.calibrate import PHASES
from tests.docs.blocks import ROOT

DOCS = ROOT / "docs"
MESSAGES = re.findall(r"^`(.+)`$", (DOCS / "faq.md").read_text(encoding="utf-8"), flags=re.MULTILINE)


@cache
def said() -> tuple[str, ...]:
    """Every text in the sources, with `...` for what is filled in."""
    texts = []
    for package in ("atts_runtime", "atts_sim"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    texts.append("".join(str(v.value) if isinstance(v, ast.Constant) else "..." for v in node.values))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    texts.append(node.value)
    return tuple(texts)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_faq_is_one_of_the_program(message: str) -> None:
    assert len(message) > 20
    wanted = re.compile(".*".join(re.escape(part) for part in message.split("...")), flags=re.DOTALL)
    assert any(wanted.search(text) for text in said()), message


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the bundled pair, short."""
    path = tmp_path_factory.mktemp("run") / "mine"
    assert main(["run", "--questions", "1", "--chains", "2", "--turns", "3", "--out", str(path)]) == 0
    return path


def schema(name: str) -> Any:
    return json.loads((DOCS / "schemas" / f"{name}.json").read_text(encoding="utf-8"))


def test_the_schemas_are_schemas_and_describe_a_run(run: Path) -> None:
    for name in ("chain", "summary"):
        jsonschema.Draft202012Validator.check_schema(schema(name))
    jsonschema.validate(json.loads((run / "summary.json").read_text()), schema("summary"))
    for line in (run / "chains.jsonl").read_text().splitlines():
        jsonschema.validate(record := json.loads(line), schema("chain"))
        assert set(record) == set(schema("chain")["properties"])
        assert set(record["calls"][0]) <= {*schema("chain")["$defs"]["call"]["properties"]}


def section(page: str, heading: str) -> str:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.split(r"^#+ ", text.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("table", ["events", "samples", "steps"])
def test_the_columns_of_a_table_are_those_that_the_page_names(run: Path, table: str) -> None:
    rows = re.findall(r"^\| (`.*?) \|", section("files.md", f"{table}.parquet"), flags=re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(pd.read_parquet(run / f"{table}.parquet").columns)


def test_the_files_of_a_run_are_those_that_the_page_names(run: Path) -> None:
    named = re.findall(r"^\| `([\w.]+)` \|", section("files.md", "The run directory"), flags=re.MULTILINE)
    assert sorted(named) == sorted(path.name for path in run.iterdir())


def test_the_errors_of_fits_that_the_page_shows_are_those_of_the_shipped_profiles() -> None:
    shown = re.findall(
        r"^\| (bundled-[\w-]+) \| (\w+) \| (.*) \| (.*) \|$", section("profiles.md", "Engines"), re.MULTILINE
    )
    stated = [
        (name, phase, *(f"{of.points}, {of.median:.1%}, {of.p90:.1%}" for of in profile.residuals(phase)))
        for name, profile in sorted(shipped_engines().items())
        for phase in PHASES
    ]
    assert shown == stated
