"""Claims about files that nobody vouches for: whatever is in them, a command says so in a line and exits with 2."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.cli import main
from atts_runtime.errors import InputError
from atts_runtime.untrusted import json_file, json_of, table_in, toml_of
from tests.runtime.scripted import record_run, settings
from tests.tables import with_metadata

DEEP = "[" * 100_000
DOTTED = "draft_args" + ".a" * 5000 + " = 1"
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(values)
def test_json_is_read_as_it_is(value: object) -> None:
    assert json_of(json.dumps(value)) == value
    assert json_of(json.dumps(value).encode()) == value


def test_toml_is_read_as_it_is() -> None:
    text = "a.b = [1, { c = 1.5 }]\n[[d]]\ne = 2026-01-01\n"
    assert toml_of(text) == tomllib.loads(text)


@pytest.mark.parametrize(("opens", "closes"), [("[", "]"), ('{"a": ', "}")])
def test_what_nests_a_hundred_deep_is_read_and_no_more(opens: str, closes: str) -> None:
    inner = "[]" if opens == "[" else "{}"
    assert json_of(opens * 99 + inner + closes * 99)
    for levels in (100, 500, 100_000):
        with pytest.raises(ValueError, match="nested more than 100 deep"):
            json_of(opens * levels + inner + closes * levels)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"x = {DEEP}", "nested more than 100 deep"),
        (DOTTED, "nested more than 100 deep"),
        ("x = " + "{ y = " * 5000, "nested more than 100 deep"),
        ("x = 0x" + "f" * 5000, "4300 digits"),
        ("x = " + "9" * 5000, "4300 digits"),
        ("x = ", "Invalid value"),
    ],
)
def test_toml_that_cannot_be_used_is_a_value_error(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        toml_of(text)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"{", "is not valid JSON"), (b"\xff", "is not valid JSON"), (DEEP.encode(), "is not valid JSON: it is nested"),
     (b"[]", "holds no JSON object"), (None, "No such file")],
)  # fmt: skip
def test_a_file_that_holds_no_object_is_named(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=said) as raised:
        json_file(path)
    assert str(path) in str(raised.value)


def test_what_to_say_of_a_file_that_is_not_there_is_the_readers_affair(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "none.json", tmp_path / "file" / "none.json"):
        with pytest.raises(InputError, match=r"^no run$"):
            json_file(path, missing="no run")
    with pytest.raises(InputError, match="cannot read"):
        json_file(tmp_path, missing="no run")


@pytest.mark.parametrize("metadata", [DEEP, "{", "[]", '{"index_columns": [[]], "columns": 1}'])
def test_a_table_with_metadata_that_pandas_did_not_write_is_refused(metadata: str, tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pd.DataFrame({"a": [1, 2]}).to_parquet(path)
    assert list(table_in(path)["a"]) == [1, 2]
    with pytest.raises(ValueError, match=r"\S") as raised:
        table_in(with_metadata(path, metadata))
    assert "\n" not in str(raised.value)


def test_a_table_with_damaged_pages_is_told_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pd.DataFrame({"a": range(1000)}).to_parquet(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + b"\xff" * 400 + whole[404:])
    with pytest.raises(ValueError, match=r".") as raised:
        table_in(path)
    assert "\n" not in str(raised.value)


def test_a_table_of_another_program_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "table.parquet")
    assert list(table_in(tmp_path / "table.parquet")["a"]) == [1, 2]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    record_run(tmp_path / "run", settings("barrier"))
    return Path("run")


@pytest.mark.parametrize(
    ("file", "content", "command", "said"),
    [
        ("manifest.json", DEEP, "trace run", "run/manifest.json is not valid JSON"),
        ("manifest.json", DEEP, "report run", "run/manifest.json is not valid JSON"),
        ("summary.json", DEEP, "report run", "run/summary.json is not valid JSON"),
        ("summary.json", '{"engines": [1]}', "trace run", "run/summary.json: engines is no object"),
        ("summary.json", '{"engines": {"draft": 1}}', "trace run", "run/summary.json: draft is no object"),
        ("summary.json", '{"wall_s": "long"}', "trace run", "run/summary.json: wall_s is no number"),
        ("chains.jsonl", f"{DEEP}\n", "trace run", "run/chains.jsonl line 1: not a chain record"),
        ("config.toml", f"x = {DEEP}", "report run", "config run/config.toml is not valid TOML"),
        ("config.toml", f"x = {DEEP}", "run --resume --out run", "config run/config.toml is not valid TOML"),
        ("config.toml", DOTTED, "run --config run/config.toml", "config run/config.toml is not valid TOML"),
        ("config.toml", f"chains = 0x{'f' * 5000}", "run --config run/config.toml", "is not valid TOML"),
        ("config.toml", f"chains = {'9' * 5000}", "run --config run/config.toml", "is not valid TOML"),
        ("policy.toml", f"x = {DEEP}", "compare --policies run/policy.toml", "is not valid TOML"),
        ("hardware.toml", f"x = {DEEP}", "run --hardware run/hardware.toml", "run/hardware.toml: is not TOML"),
        ("task.jsonl", DEEP, "run --task run/task.jsonl", "run/task.jsonl:1: not valid JSON"),
        ("none", "", f"run --engine vllm --draft-args {DEEP}", "draft_args is not JSON"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_it_is_one_line_and_status_2(
    file: str, content: str, command: str, said: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / file).write_text(content, encoding="utf-8")
    assert main(command.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err.splitlines()[-1]
    assert "Traceback" not in err
