"""The takeover budget: adaptive alpha (ACI), a budget B as an alpha, and a hard cap on takeovers in flight.

Adaptive conformal inference (Gibbs & Candes 2021, arXiv 2106.00170) moves alpha by ``gamma * (alpha - err)`` after
every decision, err = 1 for a takeover, so that the realised rate is alpha on *any* sequence of p-values. Here a
decision carries several keys at once (everything, its turn, its question) with one offset each::

    alpha_t = alpha + sum of theta_k over the decision's keys k      never clipped
    taken   = p <= alpha_t
    theta_k <- theta_k + gamma * (alpha - taken)                     for each of its keys

which is online gradient descent on the pinball loss with the keys as features. Every key's error is read off its
offset, ``rate_k - alpha = -theta_k / (gamma T_k)`` after T_k decisions, so a bound on theta is a bound on the rate.
Clipping alpha_t to [0, 1] would void it: the offset would forget what it owes.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class _Account:
    offset: float = 0.0
    decisions: int = 0
    takeovers: int = 0


class AdaptiveAlpha:
    """Alpha by key, moved by its own decisions. `alpha` in (0, 1) is the rate to keep, `gamma` > 0 the step."""

    def __init__(self, alpha: float, gamma: float) -> None:
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must lie strictly between 0 and 1, got {alpha!r}")
        if not (gamma > 0 and math.isfinite(gamma)):
            raise ValueError(f"gamma must be positive, got {gamma!r}")
        self.alpha, self.gamma = alpha, gamma
        self._accounts: dict[Hashable, _Account] = {}

    def level(self, keys: Sequence[Hashable]) -> float:
        """alpha_t of a decision with these keys; may lie outside [0, 1]."""
        return self.alpha + sum(self._accounts[key].offset for key in keys if key in self._accounts)

    def decide(self, p_value: float, keys: Sequence[Hashable], *, allowed: bool = True) -> tuple[bool, float]:
        """Whether the target takes over, and the alpha_t that said so. Decides and learns in one step, so that no
        other decision comes between; raises ValueError on a p-value outside [0, 1].

        A takeover that is not `allowed` (a cap is reached) does not happen and is accounted so: later ones make up
        for it, but the bounds below no longer hold."""
        if not 0 <= p_value <= 1:
            raise ValueError(f"a p-value lies in [0, 1], got {p_value!r}")
        level = self.level(keys)
        taken_over = allowed and p_value <= level
        self.learn(taken_over, keys)
        return taken_over, level

    def learn(self, taken_over: bool, keys: Sequence[Hashable]) -> None:
        """Account for a decision taken elsewhere: by an earlier session, or on an alpha that is stale by now."""
        for key in keys:
            account = self._accounts.setdefault(key, _Account())
            account.offset += self.gamma * (self.alpha - taken_over)
            account.decisions += 1
            account.takeovers += taken_over

    def rate(self, key: Hashable) -> float | None:
        """Realised takeover rate of a key; None before its first decision."""
        account = self._accounts.get(key)
        return account.takeovers / account.decisions if account else None

    def offset(self, key: Hashable) -> float:
        """What the key's alpha owes; 0 before its first decision."""
        return self._accounts[key].offset if key in self._accounts else 0.0


def single_key_bound(alpha: float, gamma: float, decisions: int, stale: int = 1) -> float:
    """Largest distance of rate and alpha after `decisions` on any p-values, one key each, where a decision knows of all
    earlier ones but the last `stale` - 1 (arXiv 2106.00170, Proposition 4.1, for stale = 1)."""
    return (max(alpha, 1 - alpha) + stale * gamma) / (gamma * decisions)


def overlapping_keys_bound(alpha: float, gamma: float, decisions: int, of_key: int, keys: int) -> float:
    """Largest distance of rate and alpha for a key that `of_key` of `decisions` decisions have, each with `keys` keys,
    on any p-values.

    With d = alpha - err, every update changes the squared length of theta by ``2 gamma d (alpha_t - alpha) + gamma^2
    d^2 keys``; d (alpha_t - alpha) <= alpha (1 - alpha), because p lies in [0, 1] and sides with err.
    """
    largest = max(alpha, 1 - alpha)
    squared = decisions * (2 * gamma * alpha * (1 - alpha) + gamma**2 * keys * largest**2)
    return math.sqrt(squared) / (gamma * of_key)


def alpha_for_budget(budget: float, chains: int) -> float:
    """The alpha that spends `budget` expected takeovers a turn on `chains` chains; raises ValueError outside (0, 1)."""
    if not 0 < budget < chains:
        raise ValueError(f"a budget lies strictly between 0 and the {chains} chains, got {budget!r}")
    return budget / chains


class TakeoverCap:
    """Hard bound on takeovers in flight: each holds KV memory of the target. `limit` 0 allows none."""

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"a budget must not be negative, got {limit}")
        self.limit = limit
        self._holders: set[Hashable] = set()

    def __len__(self) -> int:
        """Takeovers in flight."""
        return len(self._holders)

    def acquire(self, holder: Hashable) -> bool:
        """Take a place, if there is one; raises ValueError if the holder has one already."""
        if holder in self._holders:
            raise ValueError(f"{holder} already takes over")
        if len(self._holders) >= self.limit:
            return False
        self._holders.add(holder)
        return True

    def release(self, holder: Hashable) -> None:
        """Give the holder's place back, if it has one."""
        self._holders.discard(holder)
