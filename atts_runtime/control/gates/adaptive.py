"""The gate that keeps its takeover rate under asynchrony: sealed cohorts, adaptive alpha, monitors."""

from __future__ import annotations

from atts_runtime.conformal import Adaptive, Alarm, Counts, alpha_for_budget, smoothed, tie_breaker
from atts_runtime.control.events import ChainId
from atts_runtime.control.gates.base import Due, Segment, Verdict
from atts_runtime.control.gates.caps import Caps
from atts_runtime.control.gates.presampled import Marginal


class AdaptiveGate(Marginal):
    """As `marginal` in turn 0. A later segment is compared with the same turn of earlier questions, in admission
    order, where those are complete, and with the pre-samples where not; alpha follows the realised rates.

    A question's admission index is its number, which is fixed before anything runs, and so is what its segments are
    compared with; only whether that is complete in time, and alpha, depend on what finished first. With a `budget` B,
    alpha is B over the chains, and no more than B chains of a question are taken over at a time.
    """

    name = "adaptive"
    about = "p-value against the same turn of earlier questions; alpha follows the realised rate"
    paper = "Gibbs & Candes 2021, arXiv 2106.00170"
    monitors = True
    order_free = False
    retries = False
    takes_bank = False

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
        self._caps = Caps(questions, knobs.budget, knobs.takeovers_in_flight)

    def judge(self, segment: Segment) -> Due:
        chain, turn, ell = segment.chain, segment.turn, segment.ell
        assert ell is not None
        self._scored[chain] = turn + 1
        u = tie_breaker(self._seed, chain, turn)
        if turn == 0:
            alarms = self.calibrator.observe(chain.question, turn, ell, u)
            return super().judge(segment)._replace(alarms=alarms)
        counts, bank = self.calibrator.counts(chain.question, turn, ell)
        verdict = self._judged(segment, ell, counts, bank)
        return Due(verdicts=(verdict,), alarms=self.calibrator.observe(chain.question, turn, ell, u))

    def turn_ended(self, chain: ChainId, turn: int) -> None:
        self._caps.release(chain)

    def left(self, chain: ChainId) -> Due:
        self._caps.release(chain)
        alarms: tuple[Alarm, ...] = ()
        for turn in range(self._scored[chain], self._turns):
            alarms += self.calibrator.leave(chain.question, turn)
        return super().left(chain)._replace(alarms=alarms)

    def _verdict(self, segment: Segment, ell: float, counts: Counts) -> Verdict:
        return self._judged(segment, ell, counts, "presample")

    def _judged(self, segment: Segment, ell: float, counts: Counts, bank: str) -> Verdict:
        chain, turn, settled = segment.chain, segment.turn, segment.settled
        if settled is not None:
            if settled.rejected:
                self._caps.acquire(chain)
            self.calibrator.recall(chain.question, turn, settled.rejected)
            return Verdict(chain, ell, settled.rejected, settled.p_value, settled.alpha, settled.bank)
        # The largest tie-breaker makes a smoothed p-value the plain one.
        u = 1.0 if self.knobs.tie_seed is None else tie_breaker(self._seed, chain, turn)
        p_value = smoothed(counts, u)
        allowed = self._caps.acquire(chain)
        rejected, alpha = self.calibrator.judge(chain.question, turn, p_value, allowed=allowed)
        if not rejected:
            self._caps.release(chain)
        return Verdict(chain, ell, rejected, p_value, alpha, bank)
