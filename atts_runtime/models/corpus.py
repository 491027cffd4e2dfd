"""Training text for the bundled pair: solutions in which wrong steps are followed by their correction.

Wrong paragraphs come from two places: hand-written slips (`slip`), and the draft model's own samples
(`atts_runtime.models.harvest`), which is what the target meets when it continues a draft. Prompt and
wrong paragraphs carry no loss: their tokens are noise, and a model that learned to write wrong steps could
not score them as strange.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from atts_runtime.tasks.arithmetic import LABELS, PARAGRAPH, WAIT, Sum, questions, step_text

WrongStep = Callable[[random.Random, Sum, int], str]


@dataclass(frozen=True, slots=True)
class Part:
    """A run of training text, whether the loss counts it, and for a wrong paragraph what it should have been."""

    text: str
    learned: bool
    instead_of: str | None = None


@dataclass(frozen=True, slots=True)
class Harvest:
    """Wrong paragraphs that the draft wrote for one question, by step index."""

    question: Sum
    wrong: dict[int, str]


def slip(rng: random.Random, question: Sum, step: int) -> str:
    """A plausible wrong paragraph at `step`, mostly consistent after its first error."""
    n_steps = len(question.rest)
    value = question.first + sum(question.rest[:step])
    if step == n_steps or rng.random() < 0.04:
        return f"\\boxed{{{_misread(rng, value) if step == n_steps else value}}}"
    label, term = LABELS[step], question.rest[step]
    kind = rng.choice(("value", "term", "sign", "label", "column", "result", "edit"))
    if kind == "value":
        value = _misread(rng, value)
    elif kind == "term":
        term = (
            rng.choice([t for t in question.rest if t != term] or [-term])
            if rng.random() < 0.5
            else _misread(rng, abs(term)) * (1 if term > 0 else -1)
        )
    elif kind == "sign":
        term = -term
    elif kind == "label":
        other = max(0, min(n_steps - 1, step + rng.choice((-1, 1, 2))))
        label, term = (LABELS[other], question.rest[other]) if other != step else (label, -term)
    if term < 0 and value + term < 0:
        term = -term
    text = step_text(label, value, term)
    head, result = text.rsplit(" = ", 1)
    if kind == "column":
        at = rng.choice([m.start(1) for m in re.finditer(r"=(\d)", head)])
        head = head[:at] + _other_digit(rng, head[at]) + head[at + 1 :]
        result = str(int("".join(reversed(re.findall(r"=(\d)", head)))))
    elif kind == "result":
        result = str(_misread(rng, int(result)))
    text = f"{head} = {result}"
    if kind == "edit":
        at = rng.randrange(4, len(text))
        text = text[:at] + text[at + 1 :] if text[at] in "'+-0123456789" else text + rng.choice("0123456789")
    return text + PARAGRAPH


def _misread(rng: random.Random, value: int) -> int:
    digits = list(str(value))
    at = rng.randrange(len(digits))
    digits[at] = _other_digit(rng, digits[at])
    return int("".join(digits))


def _other_digit(rng: random.Random, digit: str) -> str:
    return rng.choice([d for d in "0123456789" if d != digit])


def solution(rng: random.Random, question: Sum, wrong_rate: float, wrong: dict[int, str] | None = None) -> list[Part]:
    """A solved question: prompt, steps, and a correction after each wrong step.

    `wrong` gives wrong paragraphs by step; steps that it does not name go wrong at `wrong_rate` with a `slip`.
    After one that only repeats the step before, the solution goes on: there is nothing to take back.
    """
    pieces = [Part(question.prompt, learned=False)]
    for step, right in enumerate(question.paragraphs):
        bad = (wrong or {}).get(step)
        if bad is None and rng.random() < wrong_rate:
            bad = slip(rng, question, step)
        if bad is None or bad == right:
            pieces.append(Part(right, learned=True))
        else:
            repeated = bad.removeprefix(WAIT) == question.step_before(step)
            mend = Part(right if repeated else WAIT + right, learned=True)
            pieces += [Part(bad, learned=False, instead_of=None if repeated else right), mend]
    return pieces


def synthetic(seed: int, wrong_share: float = 0.5, wrong_rate: float = 0.25) -> Iterator[list[Part]]:
    """An endless corpus: `wrong_share` of the solutions have slips, each step with probability `wrong_rate`."""
    rng = random.Random(f"corpus/{seed}")
    for question in questions(seed, held_out=False):
        yield solution(rng, question, wrong_rate if rng.random() < wrong_share else 0.0)


def mixed(seed: int, harvested: Sequence[Harvest], share: float) -> Iterator[list[Part]]:
    """Solutions with the draft's own wrong steps, `share` of them all, among synthetic ones."""
    rng = random.Random(f"mixed/{seed}")
    plain = synthetic(seed + 1)
    while True:
        if rng.random() < share:
            item = rng.choice(harvested)
            yield solution(rng, item.question, 0.0, item.wrong)
        else:
            yield next(plain)
