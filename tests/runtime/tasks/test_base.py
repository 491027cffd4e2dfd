"""Verdicts and votes over a task's rule, and what its fingerprint covers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.errors import InputError
from atts_runtime.tasks.answers import ExactAnswers, MathAnswers
from atts_runtime.tasks.base import Question, Task
from atts_runtime.tasks.find import MAX_CHARS


def task(*answers: str, rule: ExactAnswers | MathAnswers | None = None) -> Task:
    questions = tuple(Question(f"q/{i}", f"prompt {i}", answer) for i, answer in enumerate(answers))
    return Task("test", questions, None, rule or ExactAnswers())


def test_no_answer_is_never_correct() -> None:
    assert not task("5").is_correct(None, "5")
    assert task("5").is_correct("05", "5")


PIECES = st.lists(
    st.lists(st.sampled_from(["\\boxed{", "{", "}", "\\{", "\\", "boxed{", "1", " ", "\n"]), max_size=6).map("".join)
)


@given(PIECES)
def test_asking_after_every_piece_finds_an_answer_as_soon_as_the_whole_text_has_one(pieces: list[str]) -> None:
    asked, text = task("1"), ""
    for piece in pieces:
        text += piece
        answered = asked.answered(text, len(piece))
        assert answered == (asked.extract(text) is not None)
        if answered:
            return


def test_asking_looks_at_the_new_text_and_a_little_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(ExactAnswers, "answered", lambda self, text: bool(seen.append(len(text))))
    task("1").answered("x" * 1_000_000, 500)
    assert seen == [500 + 2 * MAX_CHARS]


@pytest.mark.parametrize(
    ("found", "winner"),
    [
        ([], None),
        ([None, None], None),
        ([None, "3", None], "3"),
        (["1", "2", "2"], "2"),
        (["2", "1", "1", "2"], "2"),
        (["07", "8", "8", "7", "+7"], "07"),
    ],
)
def test_the_majority_is_the_largest_class_and_ties_go_to_the_first_seen(
    found: list[str | None], winner: str | None
) -> None:
    assert task("5").majority(found) == winner


def test_equivalent_answers_vote_together() -> None:
    maths = MathAnswers(workers=1)
    assert task("5", rule=maths).majority(["3", "1/2", "3", "0.5", r"\frac12"]) == "1/2"
    maths.close()


def test_answers_that_cannot_be_compared_vote_apart() -> None:
    maths = MathAnswers(limit_s=1.0, workers=1)
    assert task("5", rule=maths).majority(["9^{9^{9^{9}}}", "3", "3"]) == "3"
    assert task("5", rule=maths).is_correct("9^{9^{9^{9}}}", "5") is None
    assert maths.unknown
    maths.close()


@given(st.lists(st.sampled_from(["1", "01", "2", "3", None])))
def test_the_majority_is_one_of_the_answers_and_no_class_is_larger(found: list[str | None]) -> None:
    votes = [int(answer) for answer in found if answer is not None]
    winner = task("5").majority(found)
    assert winner in found or not votes
    assert not votes or votes.count(int(winner or 0)) == max(map(votes.count, votes))


def test_the_fingerprint_covers_ids_prompts_and_answers_and_where_each_ends() -> None:
    questions = [("a", "b", "c"), ("x", "b", "c"), ("a", "x", "c"), ("a", "b", "x"), ("ab", "", "c"), ("a", "", "bc")]
    prints = {Task("t", (Question(*fields),), None, ExactAnswers()).fingerprint for fields in questions}
    assert len(prints) == len(questions)
    assert task("1", "2").fingerprint == task("1", "2").fingerprint
    assert task("1", "2").fingerprint != task("2", "1").fingerprint


def test_a_task_needs_questions_with_ids_of_their_own() -> None:
    with pytest.raises(InputError, match="no questions"):
        task()
    question = Question("a", "b", "c")
    with pytest.raises(InputError, match="2 questions with the id 'a'"):
        Task("t", (question, question), None, ExactAnswers())
