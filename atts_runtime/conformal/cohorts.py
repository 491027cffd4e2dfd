"""Sealed cohorts: banks that stay valid when segments finish in any order.

Scores that have arrived are no fair sample of those that will: where strange segments take longer, the bank of
finished ones is too tame, and the target takes over too often (`docs/conformal.md`, the asynchronous hazard). So a
score joins a *cohort* by its admission index, which is known before it runs. A segment of cohort e is only ever
compared with cohorts e-lag, e-lag-1, ... e-lag-window+1 of its key, and only if every member of those has scored or
left when the first segment of e is judged. That moment decides for the whole of e, so that a segment's own slowness
does not choose what it is compared with; that all of e are slow still may, which matters for cohorts of one or two.
Nobody waits: a cohort whose reference is not ready falls back, which callers count.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from atts_runtime.conformal.bank import SealedBank
from atts_runtime.conformal.pvalue import finite


class Fallback(Enum):
    """Why a cohort has no reference."""

    COLD = "cold"  # it is one of the first `lag`
    LATE = "late"  # members of its reference were still at work
    THIN = "thin"  # its reference holds fewer scores than `least`


@dataclass(slots=True)
class _Cohort:
    members: int
    scores: list[float] = field(default_factory=list)
    left: int = 0
    reference: SealedBank | Fallback | None = None

    @property
    def complete(self) -> bool:
        return len(self.scores) + self.left == self.members


@dataclass(slots=True)
class _Key:
    """The cohorts of one category that are kept: from what the oldest incomplete one can see to the newest."""

    cohorts: dict[int, _Cohort] = field(default_factory=dict)
    expected: int = 0
    oldest_kept: int = 0
    oldest_open: int = 0


class CohortBank:
    """Scores by (key, cohort). Keys are Mondrian categories and, like cohorts, must be fixed before the score.

    Args:
        lag: how many cohorts back the newest one of a reference lies; at least 1.
        window: how many cohorts make up a reference. It bounds the memory: a cohort that neither an incomplete one
            nor any to come can see is dropped.
        least: fewest scores that a reference may hold.
    """

    def __init__(self, *, lag: int = 1, window: int = 1, least: int = 1) -> None:
        for name, value in (("lag", lag), ("window", window), ("least", least)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.lag, self.window, self.least = lag, window, least
        self._keys: dict[Hashable, _Key] = {}

    def __len__(self) -> int:
        """How many scores are kept."""
        return sum(len(cohort.scores) for key in self._keys.values() for cohort in key.cohorts.values())

    def expect(self, key: Hashable, members: int) -> int:
        """Announce the key's next cohort, before the first of its members is admitted; returns its number."""
        if members < 0:
            raise ValueError(f"a cohort cannot have {members} members")
        state = self._keys.setdefault(key, _Key())
        state.cohorts[state.expected] = _Cohort(members)
        state.expected += 1
        self._drop(state)
        return state.expected - 1

    def insert(self, key: Hashable, cohort: int, score: float) -> tuple[float, ...] | None:
        """A member's score; returns the cohort's scores if that completes it. Raises ValueError if the score is not
        finite or the cohort expects no further member."""
        own = self._open(key, cohort)
        own.scores.append(finite(score))
        return self._sealed(self._keys[key], own)

    def leave(self, key: Hashable, cohort: int) -> tuple[float, ...] | None:
        """A member that will not score: its chain ended before, or failed; returns as `insert` does."""
        own = self._open(key, cohort)
        own.left += 1
        return self._sealed(self._keys[key], own)

    def complete(self, key: Hashable, cohort: int) -> bool:
        """Whether every member has scored or left."""
        state = self._keys[key]
        return cohort < state.oldest_open or state.cohorts[cohort].complete

    def scores(self, key: Hashable, cohort: int) -> tuple[float, ...]:
        """A cohort's scores so far; raises KeyError if it is not expected yet or no longer kept."""
        return tuple(self._keys[key].cohorts[cohort].scores)

    def reference(self, key: Hashable, cohort: int) -> SealedBank | Fallback:
        """What the segments of `cohort` are compared with; the first call decides for all of them. Raises ValueError
        where that call comes after the cohort is complete and what it could see has been dropped."""
        own = self._keys[key].cohorts[cohort]
        if own.reference is None:
            own.reference = self._reference(self._keys[key], cohort - self.lag)
        return own.reference

    def _reference(self, state: _Key, newest: int) -> SealedBank | Fallback:
        if newest < 0:
            return Fallback.COLD
        oldest = max(0, newest - self.window + 1)
        if oldest < state.oldest_kept:
            raise ValueError(f"what cohort {newest + self.lag} is compared with is no longer kept")
        blocks = [state.cohorts[e] for e in range(oldest, newest + 1)]
        if not all(block.complete for block in blocks):
            return Fallback.LATE
        bank = SealedBank(np.concatenate([block.scores for block in blocks]))
        return bank if len(bank) >= self.least else Fallback.THIN

    def _open(self, key: Hashable, cohort: int) -> _Cohort:
        known = self._keys[key].cohorts.get(cohort) if key in self._keys else None
        if known is None or known.complete:
            raise ValueError(f"cohort {cohort} of {key!r} expects no further member")
        return known

    def _sealed(self, state: _Key, cohort: _Cohort) -> tuple[float, ...] | None:
        self._drop(state)
        return tuple(cohort.scores) if cohort.complete else None

    def _drop(self, state: _Key) -> None:
        while state.oldest_open < state.expected and state.cohorts[state.oldest_open].complete:
            state.oldest_open += 1
        in_sight = state.oldest_open - self.lag - self.window + 1
        while state.oldest_kept < in_sight:
            del state.cohorts[state.oldest_kept]
            state.oldest_kept += 1
