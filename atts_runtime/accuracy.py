"""How right a run was: shares of chains, majorities and votes, with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from atts_runtime.control.votes import Vote
from atts_runtime.records import ChainRecord
from atts_runtime.tasks.base import Task

_Z95 = 1.959963984540054


def accuracy(records: Sequence[ChainRecord], task: Task, vote: Vote | None = None) -> dict[str, Any]:
    """Share of right chains, of questions whose majority is right, or the answer that the policy's `vote` chooses, and
    of questions with any right chain (pass@m). Chains that a stop rule ended count in none of them.

    Shares count what is known to be right: an answer that could not be checked lowers them. `unknown_chains` says how
    many those are, `unknown_checks` how many different comparisons in all, votes included, this process left open.

    `mean_chain_ci95` is a Wilson interval on the effective number of chains: chains of one question are not
    independent, so their number is divided by the design effect that the spread between questions shows. Where
    all chains agree that effect cannot be seen, and each question counts once.
    """
    questions = by_question(records, task, vote or Vote())
    whole = [record for record in records if record.reason != "stopped"]
    shares = [found.share for found in questions.values() if found.share is not None]
    mean = _mean([record.correct is True for record in whole])
    return {
        "mean_chain": mean,
        "mean_chain_ci95": None if mean is None else list(clustered_wilson(mean, len(whole), shares)),
        "majority": _mean([found.majority for found in questions.values()]),
        "voted": _mean([found.voted for found in questions.values()]),
        "pass_at_m": _mean([found.any_right for found in questions.values()]),
        "unknown_chains": sum(record.correct is None for record in whole),
        "unknown_checks": task.answers.unknown,
    }


@dataclass(frozen=True, slots=True)
class QuestionResult:
    """`share` of its chains that are right (None: all were stopped); whether the majority is, what the policy's vote
    chose, and any chain at all."""

    share: float | None
    majority: bool
    voted: bool
    any_right: bool


def by_question(records: Sequence[ChainRecord], task: Task, vote: Vote) -> dict[int, QuestionResult]:
    """What came of each question. Chains that were stopped do not count."""
    chains: dict[int, list[ChainRecord]] = {record.question: [] for record in records}
    for record in records:
        if record.reason != "stopped":
            chains[record.question].append(record)
    found = {}
    for question, mine in chains.items():
        answers = task.classes([record.answer for record in mine])
        weights = [1.0 if record.weight is None else record.weight for record in mine]
        votes = [(answer, w) for answer, w in zip(answers, weights, strict=True) if answer is not None]
        truth, right = task.questions[question].answer, [record.correct is True for record in mine]
        majority, voted = (
            task.is_correct(rule.winner(counted), truth) is True
            for rule, counted in ((Vote(), [(answer, 1.0) for answer, _ in votes]), (vote, votes))
        )
        found[question] = QuestionResult(_mean(right), majority, voted, any(right))
    return found


def clustered_wilson(mean: float, n: int, shares: Sequence[float]) -> tuple[float, float]:
    """A 95% interval of a share seen in `n` trials that come in clusters with these `shares`: questions, as a rule."""
    clusters = len(shares)
    n_eff = float(clusters)
    if 0 < mean < 1 and clusters > 1:
        variance_of_mean = float(np.var(shares, ddof=1)) / clusters
        binomial = mean * (1 - mean) / n
        n_eff = min(float(n), n * binomial / variance_of_mean) if variance_of_mean > 0 else float(n)
    return wilson(mean, n_eff)


def wilson(share: float, n: float) -> tuple[float, float]:
    """The 95% Wilson score interval of a share seen in `n` trials (Wilson 1927)."""
    z2 = _Z95**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At the ends the bound is the share itself, which rounding would miss.
    return (0.0 if share == 0 else max(0.0, centre - half)), (1.0 if share == 1 else min(1.0, centre + half))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None
