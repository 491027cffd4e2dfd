"""Gates that test against a pre-sampled bank of turn-0 scores, as published."""

from __future__ import annotations

from dataclasses import dataclass, field

from atts_runtime.conformal import Bank, Counts, SealedBank, plain, smoothed, tie_breaker
from atts_runtime.control.events import ChainId
from atts_runtime.control.gates.base import ATTS, NOTHING_DUE, Due, Gate, PreSample, Segment, Verdict
from atts_runtime.control.knobs import Knobs


@dataclass(slots=True)
class _PreSample:
    """Turn-0 scores that fill one bank, and how many are still to come. `sealed`: the bank, once none is."""

    missing: set[ChainId]
    segments: dict[ChainId, Segment] = field(default_factory=dict)
    bank: Bank = field(default_factory=Bank)
    sealed: SealedBank | None = None


class _PreSampled(Gate):
    """Conformal p-values against a bank of turn-0 scores, awaited once; after that no chain waits for another.

    A pre-sample is its chain's first segment, so that the bank costs no extra tokens. It is tested against
    the other pre-samples of its bank; every later segment, and every further attempt, against all of them.
    """

    paper = ATTS

    def expect(self, questions: int, chains: int, turns: int, in_flight: int | None) -> None:
        self._banks: dict[int, _PreSample] = {}
        for q in range(questions):
            sample = self._banks.setdefault(self._key(q), _PreSample(set()))
            sample.missing |= {ChainId(q, i) for i in range(chains)}

    def _key(self, question: int) -> int:
        raise NotImplementedError

    def judge(self, segment: Segment) -> Due:
        chain, ell = segment.chain, segment.ell
        assert ell is not None
        sample = self._banks[self._key(chain.question)]
        if segment.turn > 0 or segment.attempt > 0:
            bank = sample.sealed or sample.bank
            return Due((self._verdict(segment, ell, bank.counts(ell)),))
        sample.missing.discard(chain)
        sample.segments[chain] = segment
        sample.bank.add(ell)
        return self._sealed(sample)

    def left(self, chain: ChainId) -> Due:
        sample = self._banks[self._key(chain.question)]
        if chain not in sample.missing:
            return NOTHING_DUE
        sample.missing.discard(chain)
        return self._sealed(sample)

    def _sealed(self, sample: _PreSample) -> Due:
        if sample.missing:
            return NOTHING_DUE
        held, sample.segments = sample.segments, {}
        sample.sealed = sealed = sample.bank.seal()
        verdicts = []
        for _, segment in sorted(held.items()):
            assert segment.ell is not None
            verdicts.append(self._verdict(segment, segment.ell, sealed.counts_of_member(segment.ell)))
        return Due(tuple(verdicts))

    def _verdict(self, segment: Segment, ell: float, counts: Counts) -> Verdict:
        seed = self.knobs.tie_seed
        p_value = plain(counts) if seed is None else smoothed(counts, _tie_breaker(seed, segment))
        return Verdict(segment.chain, ell, p_value <= self.knobs.alpha, p_value, self.knobs.alpha, "presample")


class Marginal(_PreSampled):
    """One bank for all questions: every question's turn 0 is pre-sampled before any decision. Or one that was
    calibrated before (`Knobs.bank`): then no chain ever waits for another."""

    name = "marginal"
    about = "p-value against one bank of all questions' first segments at most alpha"
    pre_sample: PreSample = "all"
    takes_bank = True

    def __init__(self, knobs: Knobs) -> None:
        super().__init__(knobs)
        self._given = None if knobs.bank is None else SealedBank(knobs.bank)
        if self._given is not None:
            self.pre_sample = "none"

    def judge(self, segment: Segment) -> Due:
        if self._given is None:
            return super().judge(segment)
        assert segment.ell is not None
        verdict = self._verdict(segment, segment.ell, self._given.counts(segment.ell))
        return Due((verdict._replace(bank="given"),))

    def left(self, chain: ChainId) -> Due:
        return super().left(chain) if self._given is None else NOTHING_DUE

    def _key(self, question: int) -> int:
        return -1


class Conditional(_PreSampled):
    """One bank per question, of its own m pre-samples."""

    name = "conditional"
    about = "p-value against the question's own first segments at most alpha"
    pre_sample = "question"

    def _key(self, question: int) -> int:
        return question


def _tie_breaker(seed: int, segment: Segment) -> float:
    """Uniform on (0, 1], another one for every attempt."""
    about = (segment.chain, segment.turn)
    return tie_breaker(seed, *about, segment.attempt) if segment.attempt else tie_breaker(seed, *about)
