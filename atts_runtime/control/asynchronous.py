"""Asynchronous scaling against a pre-sampled bank of turn-0 scores, as published."""

from __future__ import annotations

from dataclasses import dataclass, field

from atts_runtime.conformal import Bank, Counts, SealedBank, plain, smoothed, tie_breaker
from atts_runtime.control.events import ChainId, Settled
from atts_runtime.control.policies import Due, Knobs, Policy, PreSample, Verdict


@dataclass(slots=True)
class _PreSample:
    """Turn-0 scores that fill one bank, and how many are still to come. `sealed`: the bank, once none is."""

    missing: set[ChainId]
    ells: dict[ChainId, float] = field(default_factory=dict)
    bank: Bank = field(default_factory=Bank)
    sealed: SealedBank | None = None


class _Async(Policy):
    """Conformal takeover against a bank of turn-0 scores, awaited once; after that no chain waits for another.

    A pre-sample is its chain's first segment, so that the bank costs no extra tokens. It is tested against
    the other pre-samples of its bank; every later segment against all of them.
    """

    def expect(self, questions: int, chains: int, turns: int, in_flight: int | None) -> None:
        self._banks: dict[int, _PreSample] = {}
        for q in range(questions):
            sample = self._banks.setdefault(self._key(q), _PreSample(set()))
            sample.missing |= {ChainId(q, i) for i in range(chains)}

    def _key(self, question: int) -> int:
        raise NotImplementedError

    def scored(self, chain: ChainId, turn: int, ell: float, settled: Settled | None) -> Due:
        sample = self._banks[self._key(chain.question)]
        if turn > 0:
            bank = sample.sealed or sample.bank
            return Due(verdicts=(self._verdict(chain, turn, ell, bank.counts(ell)),))
        sample.missing.discard(chain)
        sample.ells[chain] = ell
        sample.bank.add(ell)
        return self._sealed(sample)

    def left(self, chain: ChainId) -> Due:
        sample = self._banks[self._key(chain.question)]
        if chain not in sample.missing:
            return Due()
        sample.missing.discard(chain)
        return self._sealed(sample)

    def _sealed(self, sample: _PreSample) -> Due:
        if sample.missing:
            return Due()
        ells, sample.ells = sample.ells, {}
        sample.sealed = sealed = sample.bank.seal()
        return Due(
            verdicts=tuple(
                self._verdict(chain, 0, ell, sealed.counts_of_member(ell)) for chain, ell in sorted(ells.items())
            )
        )

    def _verdict(self, chain: ChainId, turn: int, ell: float, counts: Counts) -> Verdict:
        seed = self.knobs.tie_seed
        p_value = plain(counts) if seed is None else smoothed(counts, tie_breaker(seed, chain, turn))
        return Verdict(chain, ell, p_value <= self.knobs.alpha, p_value, self.knobs.alpha, "presample")


class AsyncMarginal(_Async):
    """One bank for all questions: every question's turn 0 is pre-sampled before any decision. Or one that was
    calibrated before (`Knobs.bank`): then no chain ever waits for another."""

    name = "async-marginal"
    pre_sample: PreSample = "all"

    def __init__(self, knobs: Knobs) -> None:
        super().__init__(knobs)
        self._given = None if knobs.bank is None else SealedBank(knobs.bank)
        if self._given is not None:
            self.pre_sample = "none"

    def scored(self, chain: ChainId, turn: int, ell: float, settled: Settled | None) -> Due:
        if self._given is None:
            return super().scored(chain, turn, ell, settled)
        return Due(verdicts=(self._verdict(chain, turn, ell, self._given.counts(ell))._replace(bank="given"),))

    def left(self, chain: ChainId) -> Due:
        return super().left(chain) if self._given is None else Due()

    def _key(self, question: int) -> int:
        return -1


class AsyncConditional(_Async):
    """One bank per question, of its own m pre-samples."""

    name = "async-conditional"
    pre_sample = "question"

    def _key(self, question: int) -> int:
        return question
