"""Claims about the lines of chains.jsonl: what is no chain's record is refused when it is read, by its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atts_runtime.cli import main
from atts_runtime.errors import InputError
from atts_runtime.records import ChainRecord
from atts_sim.recorded import read_run
from tests.runtime.scripted import record_run, settings

OLD: dict[str, Any] = {
    "question": 0,
    "index": 0,
    "question_id": "made/0",
    "turns": 1,
    "calls": [{"turn": 0, "kind": "score", "engine": "target", "ell": 1, "taken_over": True, "t_end_s": 1}],
    "alarms": [{"turn": 0, "monitor": "drift", "kind": "ville", "after": 3}],
    "holds_s": [{"cause": "bank", "t_start_s": 0, "t_end_s": 0.5}],
}
"""With no more than the fields that a record must have, and whole numbers for seconds."""

OF_A_CALL: dict[str, tuple[dict[str, Any], str]] = {
    "text for a number": ({"turn": "0"}, "turn cannot be '0'"),
    "a flag for a number": ({"turn": True}, "turn cannot be True"),
    "text for a flag": ({"taken_over": "no"}, "taken_over cannot be 'no'"),
    "a number for text": ({"engine": 7}, "engine cannot be 7"),
    "a list for text": ({"kind": []}, r"kind cannot be \[\]"),
    "nothing for a number": ({"tokens_new": None}, "tokens_new cannot be None"),
    "a turn that it did not have": ({"turn": 2000000000}, "turn cannot be 2000000000 in a chain of 1 turns"),
    "a turn below 0": ({"turn": -1}, "turn cannot be -1"),
    "a count beyond 64 bits": ({"flops": 10**30}, "flops cannot be 1000"),
    "no number": ({"ell": float("nan")}, "ell cannot be nan"),
    "a time beyond all clocks": ({"t_start_s": 1e300}, "t_start_s cannot be 1e.300"),
    "a time that no float can hold": ({"t_end_s": 10**400}, "t_end_s cannot be 1000"),
}
OF_A_CHAIN: dict[str, tuple[dict[str, Any], str]] = {
    "a number for a name": ({"question_id": 7}, "question_id cannot be 7"),
    "text for a place": ({"question": "0"}, "question cannot be '0'"),
    "more turns than calls": ({"turns": 2000000000}, "turns cannot be 2000000000 with 1 calls"),
    "an object for a list": ({"calls": {}}, "calls is no list"),
    "an alarm in another turn": ({"alarms": [OLD["alarms"][0] | {"turn": 9}]}, "turn cannot be 9"),
    "text for a wait's end": ({"holds_s": [OLD["holds_s"][0] | {"t_end_s": "1"}]}, "t_end_s cannot be '1'"),
}
CHANGES = {name: ({"calls": [OLD["calls"][0] | call]}, what) for name, (call, what) in OF_A_CALL.items()} | OF_A_CHAIN


@pytest.mark.parametrize("what", CHANGES)
def test_a_field_that_is_not_what_it_should_be_is_refused(what: str) -> None:
    change, message = CHANGES[what]
    with pytest.raises(InputError, match=f"^not a chain record: {message}"):
        ChainRecord.from_line(json.dumps(OLD | change))


def test_a_line_that_is_nested_too_deep_is_refused() -> None:
    with pytest.raises(InputError, match="not a chain record"):
        ChainRecord.from_line("[" * 100_000)


def test_a_record_of_an_older_version_is_read_with_the_defaults_of_newer_fields() -> None:
    record = ChainRecord.from_line(json.dumps(OLD))
    assert (record.reason, record.weight, record.calls[0].attempt, record.calls[0].ell) == ("", None, 0, 1)
    assert (record.holds_s[0].cause, record.alarms[0].after) == ("bank", 3)


def test_a_chain_that_was_stopped_before_its_first_or_its_next_call_is_read() -> None:
    for calls in ([], OLD["calls"]):
        line = json.dumps(OLD | {"reason": "stopped", "turns": len(calls) + 1, "calls": calls})
        assert ChainRecord.from_line(line).turns == len(calls) + 1


def test_every_reader_of_a_run_names_the_file_and_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record_run(tmp_path, settings("async-marginal"))
    path = tmp_path / "chains.jsonl"
    first, second, *rest = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([first, second.replace('"turn": 0', '"turn": "0"'), *rest]), encoding="utf-8")
    named = f"{path} line 2: not a chain record: turn cannot be '0'"
    for command in ("report", "trace"):
        assert main([command, str(tmp_path)]) == 2
        assert capsys.readouterr().err == f"atts-runtime {command}: {named}\n"
    with pytest.raises(InputError) as caught:
        read_run(tmp_path)
    assert str(caught.value) == named
