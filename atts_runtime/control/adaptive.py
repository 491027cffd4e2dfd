"""Asynchronous scaling that keeps its takeover rate: sealed cohorts, adaptive alpha, monitors."""

from __future__ import annotations

from atts_runtime.conformal import Adaptive, Alarm, Counts, TakeoverCap, alpha_for_budget, smoothed, tie_breaker
from atts_runtime.control.asynchronous import AsyncMarginal
from atts_runtime.control.events import ChainId, Settled
from atts_runtime.control.policies import Due, Verdict


class AsyncAdaptive(AsyncMarginal):
    """As `async-marginal` in turn 0. A later segment is compared with the same turn of earlier questions, in admission
    order, where those are complete, and with the pre-samples where not; alpha follows the realised rates.

    A question's admission index is its number, which is fixed before anything runs, and so is what its segments are
    compared with; only whether that is complete in time, and alpha, depend on what finished first. With a `budget` B,
    alpha is B over the chains, and no more than B chains of a question are taken over at a time.
    """

    name = "async-adaptive"
    monitors = True
    order_free = False

    def expect(self, questions: int, chains: int, turns: int, in_flight: int | None) -> None:
        super().expect(questions, chains, turns, in_flight)
        knobs = self.knobs
        alpha = knobs.alpha if knobs.budget is None else alpha_for_budget(knobs.budget, chains)
        self._seed = knobs.tie_seed or 0
        self.calibrator = Adaptive(
            alpha, gamma=knobs.gamma, lag=in_flight or 1, reserve=self._banks[self._key(0)].bank, seed=self._seed
        )
        for turn in range(turns):
            for _ in range(questions):
                self.calibrator.expect(turn, chains)
        self._turns = turns
        self._scored = {ChainId(q, i): 0 for q in range(questions) for i in range(chains)}
        self._settled: dict[ChainId, Settled] = {}
        self._caps = None if knobs.budget is None else [TakeoverCap(knobs.budget) for _ in range(questions)]

    def scored(self, chain: ChainId, turn: int, ell: float, settled: Settled | None) -> Due:
        if settled is not None:
            self._settled[chain] = settled
        self._scored[chain] = turn + 1
        u = tie_breaker(self._seed, chain, turn)
        if turn == 0:
            alarms = self.calibrator.observe(chain.question, turn, ell, u)
            return super().scored(chain, turn, ell, settled)._replace(alarms=alarms)
        counts, bank = self.calibrator.counts(chain.question, turn, ell)
        verdict = self._judged(chain, turn, ell, counts, bank)
        return Due(verdicts=(verdict,), alarms=self.calibrator.observe(chain.question, turn, ell, u))

    def turn_ended(self, chain: ChainId, turn: int) -> Due:
        self._release(chain)
        return super().turn_ended(chain, turn)

    def left(self, chain: ChainId) -> Due:
        self._release(chain)
        alarms: tuple[Alarm, ...] = ()
        for turn in range(self._scored[chain], self._turns):
            alarms += self.calibrator.leave(chain.question, turn)
        return super().left(chain)._replace(alarms=alarms)

    def _verdict(self, chain: ChainId, turn: int, ell: float, counts: Counts) -> Verdict:
        return self._judged(chain, turn, ell, counts, "presample")

    def _judged(self, chain: ChainId, turn: int, ell: float, counts: Counts, bank: str) -> Verdict:
        cap = self._caps[chain.question] if self._caps is not None else None
        settled = self._settled.pop(chain, None)
        if settled is not None:
            if cap is not None and settled.taken_over:
                cap.acquire(chain)
            self.calibrator.recall(chain.question, turn, settled.taken_over)
            return Verdict(chain, ell, settled.taken_over, settled.p_value, settled.alpha, settled.bank)
        # The largest tie-breaker makes a smoothed p-value the plain one.
        u = 1.0 if self.knobs.tie_seed is None else tie_breaker(self._seed, chain, turn)
        p_value = smoothed(counts, u)
        allowed = cap is None or cap.acquire(chain)
        taken_over, alpha = self.calibrator.judge(chain.question, turn, p_value, allowed=allowed)
        if not taken_over:
            self._release(chain)
        return Verdict(chain, ell, taken_over, p_value, alpha, bank)

    def _release(self, chain: ChainId) -> None:
        if self._caps is not None:
            self._caps[chain.question].release(chain)
