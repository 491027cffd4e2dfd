"""The paper's data sets by name: where they are on the Hugging Face hub, at which revision, and what is in a row.

Each revision is one that several public evaluation suites pin for the same data set. The authors evaluated parts of
them (`ATTS/dataset.py` of their code); ``--questions N`` takes the first N.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["NAMED", "HubTask", "named"]


@dataclass(frozen=True, slots=True)
class HubTask:
    """A data set: path, configuration, split and revision on the hub, and the columns that are read.

    ``wrong`` names the columns of the other options of a multiple-choice question; ``kept`` the values that a row must
    have to be taken; ``size`` is how many rows are taken, None where that is not known. ``last_number``: see
    `MathAnswers`.
    """

    path: str
    revision: str
    split: str
    question: str
    answer: str
    size: int | None
    config: str | None = None
    id: str | None = None
    wrong: tuple[str, ...] = ()
    kept: Mapping[str, object] = field(default_factory=dict)
    last_number: bool = False
    gated: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read."""
        return (self.question, self.answer, *([self.id] if self.id else []), *self.wrong, *self.kept)


NAMED = {
    "math500": HubTask(
        "HuggingFaceH4/MATH-500",
        "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        "test",
        "problem",
        "answer",
        500,
        id="unique_id",
    ),
    "aime24": HubTask(
        "HuggingFaceH4/aime_2024",
        "2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
        "train",
        "problem",
        "answer",
        30,
        id="id",
    ),
    "aime25": HubTask(
        "math-ai/aime25", "563bb8404243c5f09de6ec262f2db674fe5bce9b", "test", "problem", "answer", 30, id="id"
    ),
    "amc23": HubTask(
        "math-ai/amc23", "80815d37005feb82cd7f8fbc6901d5d3eff43057", "test", "question", "answer", 40, id="id"
    ),
    # As the authors took it: questions with one numerical answer.
    "olympiadbench": HubTask(
        "Hothan/OlympiadBench",
        "91184b52131e7fc9455fef848035173aea8cc01a",
        "train",
        "question",
        "final_answer",
        None,
        config="OE_TO_maths_en_COMP",
        id="id",
        kept={"is_multiple_answer": False, "answer_type": "Numerical"},
    ),
    "gpqa-diamond": HubTask(
        "Idavidrein/gpqa",
        "633f5ee89ab8ad4522a9f850766b73f62147ffdd",
        "train",
        "Question",
        "Correct Answer",
        198,
        config="gpqa_diamond",
        id="Record ID",
        wrong=("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"),
        gated=True,
    ),
    "gsm8k": HubTask(
        "openai/gsm8k",
        "740312add88f781978c0658806c59bc2815b9866",
        "test",
        "question",
        "answer",
        1319,
        config="main",
        last_number=True,
    ),
}
"""By the name that ``--task`` takes."""

_ALSO = {"aime2024": "aime24", "aime2025": "aime25", "amc": "amc23", "olympiad": "olympiadbench", "gpqa": "gpqadiamond"}


def named(spec: str) -> str | None:
    """The name in `NAMED` that a user means (``MATH-500``, ``AIME 2024``, ``gpqa``), or None."""
    plain = re.sub(r"[\s_-]", "", spec).lower()
    plain = _ALSO.get(plain, plain)
    return next((name for name in NAMED if name.replace("-", "") == plain), None)
