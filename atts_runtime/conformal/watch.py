"""The two monitors of a run: has the work drifted, and does asynchrony bias what finishes first?

Chains of one question resemble each other, and so do turns of one chain. A stream of raw scores is therefore never
exchangeable, drift or not, and a monitor that ranked it would ring at once. Each watch below ranks what *is*
exchangeable when nothing is wrong, one stream a turn. Thresholds are c (t + 1) (t + 2) for turn t: their false-alarm
probabilities sum to 1/c over all turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from atts_runtime.conformal.bank import Bank
from atts_runtime.conformal.monitor import Alarm, Monitor
from atts_runtime.conformal.pvalue import smoothed
from atts_runtime.conformal.ties import tie_breaker


class _ByTurn:
    name: str

    def __init__(self, threshold: float) -> None:
        if not threshold > 1:
            raise ValueError(f"an alarm threshold must exceed 1, got {threshold!r}")
        self.threshold = threshold
        self._monitors: dict[int, Monitor] = {}

    def monitor(self, turn: int) -> Monitor:
        if turn not in self._monitors:
            self._monitors[turn] = Monitor(self.threshold * (turn + 1) * (turn + 2), key=f"{self.name}/turn {turn}")
        return self._monitors[turn]


class AdmissionWatch(_ByTurn):
    """Drift: the questions' mean scores of a turn, in admission order, whatever the order of completion.

    Questions that are drawn alike make them exchangeable. `watch` takes each complete question of a turn once, and
    holds it back until all earlier ones are complete.
    """

    name = "admission"

    def __init__(self, threshold: float, seed: int) -> None:
        super().__init__(threshold)
        self._seed = seed
        self._next: dict[int, int] = {}
        self._waiting: dict[int, dict[int, float | None]] = {}

    def watch(self, question: int, turn: int, scores: Sequence[float]) -> tuple[Alarm, ...]:
        waiting = self._waiting.setdefault(turn, {})
        waiting[question] = fmean(scores) if scores else None
        alarms: list[Alarm] = []
        at = self._next.get(turn, 0)
        while at in waiting:
            mean = waiting.pop(at)
            if mean is not None:
                alarms += self.monitor(turn).watch(mean, tie_breaker(self._seed, self.name, turn, at))
            at += 1
        self._next[turn] = at
        return tuple(alarms)


class CompletionWatch(_ByTurn):
    """Asynchrony: each score's rank among the siblings of its question and turn that finished before it.

    Where score and duration have nothing to do with each other, siblings finish in random order and these ranks are
    independent and uniform. Where strange segments take longer, ranks rise, and any bank of finished segments is
    biased.
    """

    name = "completion"

    def __init__(self, threshold: float) -> None:
        super().__init__(threshold)
        self._siblings: dict[tuple[int, int], Bank] = {}

    def watch(self, question: int, turn: int, score: float, u: float) -> tuple[Alarm, ...]:
        earlier = self._siblings.setdefault((turn, question), Bank())
        p_value = smoothed(earlier.counts(score), u)
        earlier.add(score)
        return self.monitor(turn).bet(p_value)

    def forget(self, question: int, turn: int) -> None:
        self._siblings.pop((turn, question), None)
