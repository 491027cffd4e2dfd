"""Claims about the first lines of a report: what came out, against the first run where they can be compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from atts_runtime.report.facts import Accuracy, RunFacts
from atts_runtime.report.html import cell
from atts_runtime.report.lead import lead
from tests.runtime.report.made import count, read
from tests.runtime.scripted import record_run, settings


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> RunFacts:
    run = tmp_path_factory.mktemp("lead") / "run"
    record_run(run, settings("barrier", chains=4))
    count(run)
    return replace(read(run)[0], label="a", accuracy=Accuracy(0.9), wall_s=10.0, m=4.0, questions=2.0)


def with_tokens(facts: RunFacts, label: str, takeover: float | None, wall_s: float | None) -> RunFacts:
    return replace(facts, label=label, wall_s=wall_s, tokens={**facts.tokens, "takeover": takeover})


def test_a_run_alone_says_accuracy_takeovers_and_time(facts: RunFacts) -> None:
    (said,) = lead([facts])
    assert said.startswith("a: 90.0% of chains are right, the target takes over ")
    assert said.endswith(", in 10.0 s.")


@pytest.mark.parametrize(
    ("wall_s", "told"),
    [(5.0, "2.00 times as fast, 5.00 s"), (20.0, "2.00 times as slow, 20.0 s"), (10.1, "in the same time, 10.1 s")],
)
def test_a_second_run_is_told_against_the_first(facts: RunFacts, wall_s: float, told: str) -> None:
    first, second = with_tokens(facts, "a", 1000, 10.0), with_tokens(facts, "b", 250, wall_s)
    assert lead([first, second])[1] == f"b: 90.0% of chains are right, 25% of the target's tokens of a, {told}."


def test_runs_on_different_work_are_not_compared(facts: RunFacts) -> None:
    other = replace(with_tokens(facts, "b", 250, 5.0), questions=3.0)
    alike = with_tokens(facts, "b", 250, 5.0)
    seeded = replace(alike, settings={**facts.settings, "seed": 7})
    asked = replace(alike, settings={**facts.settings, "task": "others.jsonl"})
    stopped = replace(alike, finished=False)
    for run in (other, seeded, asked, stopped):
        assert "times as fast" not in lead([with_tokens(facts, "a", 1000, 10.0), run])[1]


def test_what_is_unknown_is_left_out(facts: RunFacts) -> None:
    bare = replace(with_tokens(facts, "a", None, None), accuracy=Accuracy(), decisions=[])
    assert lead([bare]) == []
    assert lead([bare, with_tokens(facts, "b", 250, 5.0)]) == ["b: 90.0% of chains are right."]


def test_a_word_is_not_broken_at_its_hyphens_and_a_sentence_may_be() -> None:
    assert cell("async-marginal", css="left") == '<td class="left word">async-marginal</td>'
    assert "word" not in cell("no such-and-such here")
