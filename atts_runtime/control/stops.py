"""Stop rules: when a question's chains need not go on."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import ClassVar

from atts_runtime.control.knobs import Knobs


class Stop:
    """What all of them do. A question is given by its number, its answers by one string each."""

    name: ClassVar[str]
    about: ClassVar[str]
    paper: ClassVar[str | None] = None
    counts_votes: ClassVar[bool] = False  # it counts answers
    weighs_votes: ClassVar[bool] = True  # a vote may weigh less than 1

    def __init__(self, knobs: Knobs) -> None:
        self.knobs = knobs

    def voted(self, question: int, answer: str | None, weight: float, alive: int) -> bool:
        """A chain is over, with an answer or none, and `alive` others are not. True: the question is decided."""
        return False

    def starts(self, question: int, max_tokens: int) -> bool:
        """A chain is about to write at most so many tokens. False: it may not."""
        return True

    def wrote(self, question: int, max_tokens: int, tokens: int) -> None:
        """It has written so many of them."""


class Majority(Stop):
    """Stop when the leading answer leads by more than what the chains under way could weigh: no vote is changed."""

    name = "majority"
    about = "no chain under way can change the vote"
    counts_votes = True

    def __init__(self, knobs: Knobs) -> None:
        super().__init__(knobs)
        self._votes: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))

    def voted(self, question: int, answer: str | None, weight: float, alive: int) -> bool:
        votes = self._votes[question]
        if answer is not None:
            votes[answer] += weight
        first, second = _two_most(votes)
        return alive > 0 and first - second > alive


class Beta(Majority):
    """Adaptive consistency: stop when the leading answer beats the second with probability `Knobs.beta_level`, under a
    uniform prior on the share of the two: P(X > 1/2), X ~ Beta(v1 + 1, v2 + 1)."""

    name = "beta"
    about = "the leading answer is the majority with probability beta_level"
    paper = "Aggarwal et al. 2023, arXiv 2305.11860"
    weighs_votes = False

    def voted(self, question: int, answer: str | None, weight: float, alive: int) -> bool:
        votes = self._votes[question]
        if answer is not None:
            votes[answer] += 1
        first, second = (int(count) for count in _two_most(votes))
        return alive > 0 and first > 0 and leads(first, second) >= self.knobs.beta_level


class TokenBudget(Stop):
    """Never write more than `Knobs.token_budget` tokens on a question: a chain whose next piece might exceed it, as
    long as it may become, beside those that others are writing, is stopped."""

    name = "tokens"
    about = "a question has written its token budget"

    def __init__(self, knobs: Knobs) -> None:
        super().__init__(knobs)
        self._tokens: dict[int, int] = defaultdict(int)  # written, or promised to calls under way

    def starts(self, question: int, max_tokens: int) -> bool:
        assert self.knobs.token_budget is not None
        if self._tokens[question] + max_tokens > self.knobs.token_budget:
            return False
        self._tokens[question] += max_tokens
        return True

    def wrote(self, question: int, max_tokens: int, tokens: int) -> None:
        self._tokens[question] += tokens - max_tokens


def leads(first: int, second: int) -> float:
    """P(X > 1/2) for X ~ Beta(first + 1, second + 1): of n + 1 fair coins, n votes in all, at most `first` show heads
    (Abramowitz & Stegun 26.5.24)."""
    coins = first + second + 1
    return float(sum(math.comb(coins, heads) for heads in range(first + 1)) / 2**coins)


def _two_most(votes: dict[str, float]) -> tuple[float, float]:
    ordered = sorted(votes.values(), reverse=True)
    return (ordered[0] if ordered else 0.0), (ordered[1] if len(ordered) > 1 else 0.0)
