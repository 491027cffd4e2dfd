"""The bundled task: running sums, one verifiable step a paragraph.

A question lists 4 to 9 two-digit terms, each labelled::

    37 (a)+45 (b)-28 (c)+91

A solution takes one step a paragraph: the running value and the term, the columns from the right (an apostrophe marks a
carry or a borrow, which the next column adds or takes as a 1), restates the running value, and closes with
the boxed answer::

    37 (a)+45: 7+5=2' 3+4+1=8 = 82

    82 (b)-28: 2-8=4' 8-2-1=5 = 54

    54 (c)+91: 4+1=5 5+9=4' 0+0+1=1 = 145

    \\boxed{145}

A wrong paragraph is mended by the one after it, which starts with ``Wait, `` and does the step again.
A question shows its first one to three steps already worked, as in a chain under way. The very first step is easier
than all others and nothing can be wrong before it, so that a bank of first segments, which is what the asynchronous
policies calibrate with, would say nothing about later ones.

Running values never fall below zero. A sixteenth of all questions, chosen by hash, is *held out*: the
generator hands those to evaluation only, so no training text ever showed one of them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

PARAGRAPH = "\n\n"
WAIT = "Wait, "
LABELS = "abcdefghijklmnop"
MIN_TERMS, MAX_TERMS = 4, 9
MAX_WORKED = 3
_HELD_OUT_ONE_IN = 16


@dataclass(frozen=True, slots=True)
class Sum:
    """One question: a first term and signed further terms, all with two digits; the first `worked` steps are given."""

    first: int
    rest: tuple[int, ...]
    worked: int = 0

    @property
    def terms(self) -> str:
        """The terms with their labels."""
        labelled = (f"({LABELS[i]}){term:+d}" for i, term in enumerate(self.rest))
        return " ".join([str(self.first), *labelled]) + PARAGRAPH

    @property
    def prompt(self) -> str:
        """The terms and the steps that are given."""
        return self.terms + "".join(self._solution()[: self.worked])

    @property
    def answer(self) -> str:
        return str(self.first + sum(self.rest))

    @property
    def paragraphs(self) -> tuple[str, ...]:
        """What is left to write, a step a paragraph and the boxed answer last (no blank line after it)."""
        return self._solution()[self.worked :]

    def step_before(self, step: int) -> str | None:
        """The paragraph before `paragraphs[step]`, given or written; None where there is none."""
        at = self.worked + step
        return self._solution()[at - 1] if at else None

    def _solution(self) -> tuple[str, ...]:
        out = []
        value = self.first
        for i, term in enumerate(self.rest):
            out.append(step_text(LABELS[i], value, term) + PARAGRAPH)
            value += term
        return (*out, f"\\boxed{{{value}}}")

    @property
    def held_out(self) -> bool:
        return hashlib.blake2b(self.terms.encode(), digest_size=8).digest()[0] % _HELD_OUT_ONE_IN == 0


def step_text(label: str, value: int, term: int) -> str:
    """One worked step, for instance ``82 (b)-28: 2-8=4' 8-2-1=5 = 54``."""
    return f"{value} ({label}){term:+d}: {' '.join(columns(value, term))} = {value + term}"


def columns(value: int, term: int) -> list[str]:
    """The columns from the right: digits, a 1 carried or borrowed in, the result, an apostrophe for one passed on."""
    op = "+" if term >= 0 else "-"
    sign = 1 if term >= 0 else -1
    a, b = str(value)[::-1], str(abs(term))[::-1]
    carry, out = 0, []
    for i in range(max(len(a), len(b)) + 1):
        x, y = int(a[i : i + 1] or 0), int(b[i : i + 1] or 0)
        if i >= max(len(a), len(b)) and not carry:
            break
        total = x + sign * (y + carry)
        passed = int(not 0 <= total <= 9)
        out.append(f"{x}{op}{y}{(op + '1') * carry}={total % 10}{chr(39) * passed}")
        carry = passed
    return out


def questions(
    seed: int, *, held_out: bool = True, min_terms: int = MIN_TERMS, max_terms: int = MAX_TERMS
) -> Iterator[Sum]:
    """An endless, reproducible stream of distinct-by-chance questions from one side of the held-out split.

    Held-out questions come with one to three steps worked (leaving two at least), training ones with none.
    """
    rng = random.Random(f"arithmetic/{seed}")
    while True:
        question = _draw(rng, rng.randint(min_terms, max_terms))
        if question.held_out != held_out:
            continue
        worked = rng.randint(1, min(MAX_WORKED, len(question.rest) - 2)) if held_out else 0
        yield replace(question, worked=worked)


def _draw(rng: random.Random, n_terms: int) -> Sum:
    first = value = rng.randint(10, 99)
    rest = []
    for _ in range(n_terms - 1):
        term = rng.randint(10, 99)
        if rng.random() < 0.5 and term <= value:
            term = -term
        rest.append(term)
        value += term
    return Sum(first, tuple(rest))
