"""Monitors: test martingales that grow when scores stop being exchangeable.

The *simple jumper* (Vovk et al. 2021, "Retrain or not retrain") bets on p-values being too small, too large or
neither, and moves a share J of its capital between these bets at every step. On independent uniform p-values the
capital is a martingale from 1, so that P(it ever reaches c) <= 1/c (Ville). Two alarms are read off it:

- Ville: capital >= c, once, with false alarm probability at most 1/c over the whole stream;
- CUSUM: capital over its own past minimum >= c, which finds late changes sooner and may be raised again; the mean
  number of scores between false alarms is at least c.

Only p-values taken *online* (each score ranked against all earlier ones) are independent. P-values of a shared bank
are not, and must not be fed.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

from atts_runtime.conformal.bank import Bank
from atts_runtime.conformal.pvalue import smoothed

_BETS = (-1.0, 0.0, 1.0)


class SimpleJumper:
    """The martingale. `capital` may leave the range of floats, `log_capital` does not."""

    def __init__(self, jump: float = 0.01) -> None:
        if not 0 < jump <= 1:
            raise ValueError(f"jump must be in (0, 1], got {jump!r}")
        self.jump = jump
        self.log_capital = 0.0
        self._shares = [1 / len(_BETS)] * len(_BETS)

    def bet(self, p_value: float) -> float:
        """Take one p-value in [0, 1]; returns the factor by which the capital changed."""
        if not 0 <= p_value <= 1:
            raise ValueError(f"a p-value lies in [0, 1], got {p_value!r}")
        mixed = [(1 - self.jump) * share + self.jump / len(_BETS) for share in self._shares]
        grown = [share * (1 + bet * (p_value - 0.5)) for share, bet in zip(mixed, _BETS, strict=True)]
        factor = sum(grown)
        self._shares = [share / factor for share in grown]
        self.log_capital += math.log(factor)
        return factor


@dataclass(frozen=True, slots=True)
class Alarm:
    """`after` scores of the stream `key`, the statistic `kind` (ville, cusum) reached its threshold."""

    kind: str
    key: Hashable
    after: int


class Monitor:
    """Ranks a stream of scores online and bets on the ranks.

    Args:
        threshold: c of the alarms, > 1.
        key: named in the alarms.
    """

    def __init__(self, threshold: float = 100.0, *, key: Hashable = None) -> None:
        if not threshold > 1:
            raise ValueError(f"an alarm threshold must exceed 1, got {threshold!r}")
        self.threshold, self.key = threshold, key
        self.martingale = SimpleJumper()
        self.log_cusum = 0.0
        self.seen = 0
        self.rung = False
        self._bank = Bank()

    def watch(self, score: float, u: float) -> tuple[Alarm, ...]:
        """Rank one score against all earlier ones, with tie-breaker `u`; returns the alarms that it raised."""
        p_value = smoothed(self._bank.counts(score), u)
        self._bank.add(score)
        return self.bet(p_value)

    def bet(self, p_value: float) -> tuple[Alarm, ...]:
        """Take one p-value that is independent of all earlier ones if the stream is exchangeable."""
        factor = self.martingale.bet(p_value)
        self.seen += 1
        self.log_cusum = max(self.log_cusum, 0.0) + math.log(factor)
        alarms = []
        if not self.rung and self.martingale.log_capital >= math.log(self.threshold):
            self.rung = True
            alarms.append(Alarm("ville", self.key, self.seen))
        if self.log_cusum >= math.log(self.threshold):
            self.log_cusum = 0.0
            alarms.append(Alarm("cusum", self.key, self.seen))
        return tuple(alarms)
