"""Data sets of the hub: named ones at their pinned revision, any other by its name; without a network one clear line.

No test asks the hub. Most put a fake in place of the package `datasets`; the last ones use the package itself, on a
cache that they make, and are skipped where it is not installed.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from atts_runtime.cli import main
from atts_runtime.config import RunConfig
from atts_runtime.errors import InputError
from atts_runtime.session import load
from atts_runtime.tasks import hub as hub_module
from atts_runtime.tasks.answers import ChoiceAnswers, MathAnswers
from atts_runtime.tasks.load import load_task
from atts_runtime.tasks.named import NAMED, named
from atts_runtime.tasks.prompts import INSTRUCTION, in_steps

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def error_of(spec: str, n_questions: int | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load_task(spec, n_questions, 0)
    message = str(caught.value)
    assert "\n" not in message
    return message


class Split(list[dict[str, object]]):
    """Rows, and where the client cached them."""

    cache_files = ({"filename": f"/cache/owner___name/default/0.0.0/{COMMIT}/name-test.arrow"},)


class FakeHub(ModuleType):
    """Stands for the package `datasets`: its splits are lists of rows, and it keeps what was asked of it."""

    def __init__(self, splits: dict[str, list[dict[str, object]]]) -> None:
        super().__init__("datasets")
        self.splits = splits
        self.asked: list[tuple[str | None, ...]] = []

    def load_dataset(self, name: str, config: str | None, *, split: str | None, revision: str | None) -> Any:
        self.asked.append((name, config, split, revision))
        splits = {name: Split(rows) for name, rows in self.splits.items()}
        return splits if split is None else splits[split]


def use_hub(monkeypatch: pytest.MonkeyPatch, **splits: list[dict[str, object]]) -> FakeHub:
    hub = FakeHub(splits)
    monkeypatch.setitem(sys.modules, "datasets", hub)
    return hub


def test_a_hub_data_set_gives_its_test_split_named_by_position(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = use_hub(
        monkeypatch, train=[{"problem": "no", "answer": "0"}], test=[{"problem": "x", "answer": 27.0, "id": 9}]
    )
    task = load_task("owner/name", None, 0)
    assert hub.asked == [("owner/name", None, None, None)]
    assert [(q.id, q.prompt, q.answer) for q in task.questions] == [("owner/name/0", "x" + INSTRUCTION, "27")]
    assert task.segment_stop is None


def test_a_hub_data_set_without_a_test_split_gives_its_train_split(monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, other=[], train=[{"prompt": "x", "answer": "1"}])
    assert len(load_task("name", None, 0).questions) == 1


def test_a_hub_configuration_and_split_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = use_hub(monkeypatch, dev=[{"question": "x", "answer": "#### 1"}])
    assert load_task("owner/name@main:dev", None, 0).questions[0].answer == "1"
    assert hub.asked == [("owner/name", "main", "dev", None)]


def test_hub_rows_beyond_the_number_asked_for_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, test=[{"question": "x", "answer": "1"}, {"bad": 1}])
    assert len(load_task("name", 1, 0).questions) == 1
    assert error_of("name", 2).startswith("name, split test, row 1: no question text")


def test_more_questions_than_the_hub_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, test=[{"question": "x", "answer": "1"}])
    assert error_of("name", 2) == "name has 1 questions, 2 were asked for; ask for fewer"


def test_a_hub_data_set_without_a_usual_split_lists_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    use_hub(monkeypatch, dev=[], extra=[])
    assert error_of("name").endswith("add one of :dev, :extra")


def test_without_the_optional_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert error_of("owner/name").endswith("pip install 'atts[hub]'")


def test_what_a_revision_resolved_to_is_in_the_settings_and_in_what_a_run_keeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub = use_hub(monkeypatch, test=[{"question": "x", "answer": "1"}])
    config, task = load(RunConfig(task="owner/name@main#v1"))
    assert task.told() | {"fingerprint": ""} == {
        "name": "owner/name@main#v1",
        "source": "hub",
        "path": "owner/name",
        "config": "main",
        "split": "test",
        "revision": COMMIT,
        "fingerprint": "",
    }
    assert config.task == f"owner/name@main:test#{COMMIT}"
    again, same = load(config)
    assert hub.asked[-1] == ("owner/name", "main", "test", COMMIT)
    assert (again, same.fingerprint) == (config, task.fingerprint)


@pytest.mark.parametrize("spec", ["a/b/c", "./questions.json", "https://example.org/x", "two words", "name:", "name@"])
def test_a_spec_that_can_be_nothing_is_refused_without_asking_the_hub(
    monkeypatch: pytest.MonkeyPatch, spec: str
) -> None:
    hub = use_hub(monkeypatch)
    assert error_of(spec).startswith(f"no task {spec!r}; give arithmetic, math500, ")
    assert not hub.asked


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(use_hub(monkeypatch), "load_dataset", fail)


def test_without_a_network_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, ConnectionError("\nCouldn't reach it\nlong story"))
    message = error_of("math500")
    assert message.startswith("cannot reach the Hugging Face hub for 'math500'")
    assert "run once with a network, set HF_HOME to a cache that holds it, or give a .jsonl file" in message


def test_a_gated_data_set_says_whose_token_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, FileNotFoundError("Dataset 'Idavidrein/gpqa' is a gated dataset on the Hub."))
    message = error_of("gpqa-diamond")
    assert message.startswith(
        "'gpqa-diamond' is gated: accept its terms at https://huggingface.co/datasets/Idavidrein/"
    )
    assert "set HF_TOKEN" in message


def test_another_failure_of_the_hub_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, RuntimeError("\nno such config\nlong story"))
    assert error_of("owner/name").startswith("cannot load 'owner/name' from the Hugging Face hub (no such config)")


def test_the_command_ends_with_one_line_and_code_2(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, ConnectionError("Couldn't reach it"))
    assert main(["run", "--task", "aime24", "--out", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("atts-runtime run: cannot reach the Hugging Face hub for 'aime24'")
    assert not (tmp_path / "run").exists()


# Named tasks


def row_of(name: str, number: int) -> dict[str, object]:
    """A row with the columns that a named task reads, and one more."""
    task = NAMED[name]
    row: dict[str, object] = {column: f"{column} {number}" for column in task.columns} | {"other": None}
    row |= {task.answer: f"{number}", **task.kept}
    if name == "olympiadbench":
        row[task.answer] = [f"{number}"]
    if name == "gsm8k":
        row[task.answer] = f"so\n#### {number}"
    return row


def named_hub(monkeypatch: pytest.MonkeyPatch, name: str, rows: Sequence[dict[str, object]]) -> FakeHub:
    monkeypatch.setattr(Split, "cache_files", ())
    return use_hub(monkeypatch, **{NAMED[name].split: list(rows)})


@pytest.mark.parametrize("name", NAMED)
def test_a_named_task_is_asked_for_at_its_pinned_revision(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    hub = named_hub(monkeypatch, name, [row_of(name, number) for number in range(3)])
    task = load_task(name, 2, 0)
    pinned = NAMED[name]
    assert hub.asked == [(pinned.path, pinned.config, pinned.split, pinned.revision)]
    assert len(pinned.revision) == 40
    told = task.told()
    assert (told["name"], told["path"], told["revision"]) == (name, pinned.path, pinned.revision)
    assert [question.id.partition("/")[0] for question in task.questions] == [name, name]
    if not pinned.wrong:
        assert [question.answer for question in task.questions] == ["0", "1"]
        assert task.questions[0].prompt == in_steps(f"{pinned.question} 0")


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        ("MATH-500", "math500"),
        ("AIME 2024", "aime24"),
        ("aime_2025", "aime25"),
        ("AMC23", "amc23"),
        ("OlympiadBench", "olympiadbench"),
        ("GPQA", "gpqa-diamond"),
        ("GPQA-diamond", "gpqa-diamond"),
        ("gsm8k", "gsm8k"),
        ("openai/gsm8k", None),
        ("math", None),
    ],
)
def test_a_name_is_known_in_its_usual_spellings(spelled: str, name: str | None) -> None:
    assert named(spelled) == name


def test_a_multiple_choice_task_shows_all_options_and_answers_by_letter(monkeypatch: pytest.MonkeyPatch) -> None:
    named_hub(monkeypatch, "gpqa-diamond", [row_of("gpqa-diamond", number) for number in range(40)])
    task = load_task("gpqa", 40, 7)
    assert isinstance(task.answers, ChoiceAnswers)
    for number, question in enumerate(task.questions):
        assert f"\n{question.answer}. {number}\n" in question.prompt
        assert all(f". Incorrect Answer {wrong} {number}\n" in question.prompt for wrong in (1, 2, 3))
    assert {question.answer for question in task.questions} == set("ABCD")


def test_only_rows_of_the_kind_that_the_authors_took_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row_of("olympiadbench", number) for number in range(3)]
    rows[1]["answer_type"] = "Interval"
    named_hub(monkeypatch, "olympiadbench", rows)
    assert [question.answer for question in load_task("olympiadbench", None, 0).questions] == ["0", "2"]


def test_only_the_task_that_says_so_takes_the_last_number(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "that makes 1,007 apples"
    named_hub(monkeypatch, "gsm8k", [row_of("gsm8k", 1)])
    assert load_task("gsm8k", 1, 0).extract(text) == "1007"
    named_hub(monkeypatch, "math500", [row_of("math500", 1)])
    task = load_task("math500", 1, 0)
    assert isinstance(task.answers, MathAnswers)
    assert task.extract(text) is None


def test_another_number_of_rows_than_the_data_set_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    named_hub(monkeypatch, "aime24", [row_of("aime24", 1)])
    assert "gave 1 questions, not 30" in error_of("aime24")


def test_a_missing_column_is_named_with_those_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    named_hub(monkeypatch, "amc23", [{"problem": "x", "answer": "1"}])
    assert error_of("amc23", 1).endswith("no column 'question', there are problem, answer; is it another revision?")


def test_a_file_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("gsm8k").write_text('{"question": "?", "answer": 1}\n')
    assert load_task("gsm8k", None, 0).told()["source"] == "jsonl"


# The package itself


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A data set in the hub client's cache, at `COMMIT`, and no network."""
    datasets = pytest.importorskip("datasets", reason="datasets is not installed (extra hub)")
    cache = tmp_path / "cache"
    file = tmp_path / "test.json"
    file.write_text("".join(json.dumps({"question": f"{i}?", "answer": f"{i}"}) + "\n" for i in range(4)))
    datasets.disable_progress_bars()
    made = datasets.load_dataset("json", data_files={"test": str(file)}, cache_dir=str(cache))
    built = Path(made["test"].cache_files[0]["filename"]).parent
    place = cache / "owner___name" / "default" / "0.0.0" / COMMIT
    place.parent.mkdir(parents=True)
    shutil.copytree(built, place)
    for arrow in place.glob("json-*.arrow"):
        arrow.rename(arrow.with_name(arrow.name.replace("json-", "name-")))
    info = json.loads((place / "dataset_info.json").read_text())
    (place / "dataset_info.json").write_text(json.dumps(info | {"dataset_name": "name", "builder_name": "json"}))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_module, "_reachable", lambda: False)
    return "owner/name"


def test_without_a_network_the_cache_serves_and_tells_the_revision(cached: str) -> None:
    task = load_task(cached, None, 0)
    assert [(q.id, q.prompt, q.answer) for q in task.questions][:2] == [
        ("owner/name/0", "0?" + INSTRUCTION, "0"),
        ("owner/name/1", "1?" + INSTRUCTION, "1"),
    ]
    assert task.told()["revision"] == COMMIT
    assert task.source is not None
    again = load_task(task.source.spec, None, 0)
    assert (again.source, again.fingerprint) == (task.source, task.fingerprint)


def test_a_cache_at_another_revision_than_the_one_asked_for_is_refused(cached: str) -> None:
    other = COMMIT[::-1]
    assert f"holds owner/name at revision {COMMIT}, not at {other}" in error_of(f"{cached}#{other}")


def test_what_the_cache_lacks_ends_at_once_in_one_line(cached: str) -> None:
    assert error_of("owner/other").startswith("cannot reach the Hugging Face hub for 'owner/other'")
