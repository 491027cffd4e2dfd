"""Claims about ``atts-runtime doctor``: what decides its exit code, and that what does not work has a mend."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from atts_runtime.cli import main
from atts_runtime.commands import doctor as command
from atts_runtime.doctor import checks, examine
from atts_runtime.doctor.checks import Check, bundled_checks, installed_checks

Capture = pytest.CaptureFixture[str]
Found = tuple[list[Check], str | None]
WORKS = Check("engines", "transformers", "works", "one turn done")


def probed(**failures: str) -> examine.Probe:
    """A probe of a machine on which everything works but for what `failures` names."""

    def probe(what: str) -> Found:
        if what in failures:
            return [], failures[what]
        return ([WORKS] if what == "embedded" else []), None

    return probe


def diagnosed(monkeypatch: pytest.MonkeyPatch, **failures: str) -> None:
    made = list(examine.examine(probed(**failures)))
    monkeypatch.setattr(command, "examine", lambda servers: iter(made))


def test_where_the_embedded_engine_works_it_exits_with_0(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    diagnosed(monkeypatch)
    assert main(["doctor", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["works"] is True
    assert {"group", "name", "state", "found", "mend"} == set(told["checks"][0])


def test_where_it_does_not_it_exits_with_1_and_says_why(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    diagnosed(monkeypatch, embedded="OSError: no weights")
    assert main(["doctor"]) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "no weights" in told
    assert "embedded engine does not work" in told


def test_a_torch_that_cannot_be_imported_is_told_as_such() -> None:
    found = list(examine.examine(probed(devices="Python was ended by SIGILL", embedded="Python was ended by SIGILL")))
    (torch,) = (check for check in found if check.name == "torch" and check.group == "devices")
    assert torch.state == "broken"
    assert torch.mend is not None
    assert "pytorch.org" in torch.mend


def test_whatever_does_not_work_has_a_mend() -> None:
    failing = dict.fromkeys(("devices", "embedded", "vllm"), "it failed")
    for check in examine.examine(probed(**failing)):
        assert (check.mend is None) == (check.state == "works"), check


def test_a_version_out_of_range_is_broken_and_the_mend_names_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "1.13.0"}
    monkeypatch.setattr(metadata, "requires", lambda name: ["torch>=2.6", "numpy>=1.26", "ray; extra == 'ray'"])
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: versions.get(name) or real(name))
    found = {check.name: check for check in installed_checks()}
    assert found["torch"].state == "broken"
    assert found["torch"].mend == "pip install 'torch>=2.6'"
    assert found["numpy"].state == "works"
    assert "ray" not in found


def test_a_dependency_that_is_missing_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: ["no-such-distribution>=1"])
    (missing,) = (check for check in installed_checks() if check.name == "no-such-distribution")
    assert (missing.state, missing.found) == ("broken", "not installed")


def test_weights_that_are_a_stub_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "draft").mkdir()
    (tmp_path / "draft" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    monkeypatch.setattr(checks, "_MODELS", tmp_path)
    assert [check.state for check in bundled_checks()] == ["broken", "broken"]


def test_a_probe_that_raises_is_told_by_its_last_line() -> None:
    found, why = examine.in_subprocess("no such probe")
    assert found == []
    assert why == "KeyError: 'no such probe'"


@pytest.mark.parametrize(
    ("status", "stderr", "why"),
    [(0, "warning", None), (-4, "", "Python was ended by SIGILL"), (1, "a\nImportError: b\n", "ImportError: b")],
)
def test_how_a_probe_ended_is_put_into_words(status: int, stderr: str, why: str | None) -> None:
    assert examine.ending(status, stderr) == why


@pytest.mark.slow
def test_on_this_machine_the_embedded_engine_works(capsys: Capture) -> None:
    assert main(["doctor", "--json"]) == 0
    found = {(check["group"], check["name"]): check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert found["engines", "transformers"]["state"] == "works"
    assert found["devices", "CPU"]["state"] == "works"
    assert ("devices", "hardware profile") in found
