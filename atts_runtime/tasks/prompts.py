r"""How questions are put to a model, and the order in which options are shown.

Named tasks ask for what the method's authors ask for (steps set apart by blank lines, the answer in a box), in our own
words; what the user brings is asked for less.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence

__all__ = ["INSTRUCTION", "LETTERS", "MOST_OPTIONS", "in_steps", "order_of", "put"]

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


def in_steps(question: str, options: Sequence[str] = ()) -> str:
    """The prompt of a question of a named data set."""
    steps = "Reason step by step and leave a blank line between steps.\n"
    if not options:
        return f"Solve this problem. {steps}Write the final answer within \\boxed{{}}.\n\nProblem: {question}\n"
    letters = LETTERS[: len(options)]
    return (
        f"Choose the right option. {steps}"
        f"Write only its letter, {', '.join(letters[:-1])} or {letters[-1]}, within \\boxed{{}}.\n\n"
        f"Problem: {question}\nOptions:\n{_listed(options)}\n"
    )


def _listed(options: Sequence[str]) -> str:
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
