r"""How questions are put to a model, and the order in which options are shown.

Named tasks use the wording of the method's authors (their published code, `build_question` in `ATTS/ref_async.py` of
menik1126/Asynchronous-Test-Time-Scaling), without the indentation that their source gave it; what the user brings
is put in our own words.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence

__all__ = ["INSTRUCTION", "LETTERS", "MOST_OPTIONS", "order_of", "published", "put"]

INSTRUCTION = "\n\nReason step by step and put your final answer within \\boxed{}.\n\n"
"""What follows the question in the prompt of a free-text task."""

_CHOICE_INSTRUCTION = "\n\nReason step by step and put the letter of the right option within \\boxed{}.\n\n"
MOST_OPTIONS = 10
LETTERS = string.ascii_uppercase[:MOST_OPTIONS]


def order_of(question_id: str, options: int, seed: int) -> tuple[int, ...]:
    """A permutation: position by position, which of the options is shown. Fixed by question and seed alone."""
    order = list(range(options))
    random.Random(f"options/{seed}/{question_id}").shuffle(order)
    return tuple(order)


def put(question: str, options: Sequence[str] = ()) -> str:
    """The prompt of a question that the user brings."""
    if not options:
        return question + INSTRUCTION
    return f"{question}\n\n{_listed(options)}{_CHOICE_INSTRUCTION}"


def published(question: str, options: Sequence[str] = ()) -> str:
    """The prompt of a question of the paper's data sets."""
    if not options:
        return (
            "Please answer the following problem using step-by-step reasoning.\n"
            "Please separate your reasoning steps with two newline characters (\\n\\n).\n"
            "Please must put your final answer within \\boxed{}.\n\n"
            f"Question: {question}\n"
        )
    boxes = [f"\\boxed{{{letter}}}" for letter in LETTERS[: len(options)]]
    return (
        "This is a multiple-choice question.\n"
        "Please answer the following problem using step-by-step reasoning.\n"
        "Separate each reasoning step with **two newline characters** (`\\n\\n`).\n"
        f"You must put your final answer within \\boxed{{}}, such as {', '.join(boxes[:-1])}, or {boxes[-1]}. "
        "No other formats are allowed.\n\n"
        f"Question: {question}\nChoices:\n{_listed(options)}\n"
    )


def _listed(options: Sequence[str]) -> str:
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
