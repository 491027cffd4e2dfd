"""What r will be at another number of chains or turns: a closed form from the statistics of one run.

Chains of a question write segments whose lengths are drawn alike and on their own. With S(k) the share of segments
longer than k tokens, R_k ~ Binomial(writers, S(k)) of them are still being written in step k, which takes step_s(R_k),
and the other chains wait, so that at a barrier

    stall = sum_k E[(chains - R_k) * step_s(R_k) * 1{R_k > 0}]

chain-seconds go by in waiting for the last (`Writer.stall_s`, exact under the above). A turn has two such waits: for
the last draft, all living chains writing, and for the last takeover, B of them writing. A score comes a fixed time
after its draft, which delays all chains alike and stalls none. How many chains come to a turn is binomial too.

Without a barrier nobody waits, and what is to be known is how full the batches are: chains go round between drafting,
scoring and takeover, and the rows at each model follow from how long a visit takes (a fixed point, as in the mean-value
analysis of closed queues). All this is for one question in flight, and without the wait for a pre-sampled bank, which a
run has once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atts_runtime.control import POLICIES
from atts_runtime.errors import InputError
from atts_runtime.profiler.counts import Rates
from atts_runtime.profiler.device import DevicePeak
from atts_runtime.profiler.intensity import ratio
from atts_runtime.records import CallRecord, ChainRecord

Floats = NDArray[np.float64]
_ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Writer:
    """A model that writes segments.

    survival   [longest] share of its segments longer than 0, 1, 2 ... tokens
    step_s     seconds of a decode step at so many rows
    weights_s  seconds in which the device reads the model's weights once, at its peak
    """

    survival: Floats
    step_s: Callable[[float], float]
    weights_s: float

    @classmethod
    def of(cls, lengths: Sequence[int], step_s: Callable[[float], float], weights_s: float) -> Writer:
        """From the lengths of its segments, in tokens; a model that wrote none never will."""
        longest = max(lengths, default=0)
        longer = np.array(lengths, dtype=np.int64)[:, None] > np.arange(longest)
        return cls(longer.mean(axis=0) if longest else np.zeros(0), step_s, weights_s)

    @property
    def tokens(self) -> float:
        """Mean length of a segment."""
        return float(self.survival.sum())

    def stall_s(self, chains: int, writers: int) -> float:
        """Chain-seconds that `chains` wait in all for `writers` of them, who all begin at once."""
        seconds = np.array([0.0, *(self.step_s(rows) for rows in range(1, writers + 1))])
        waiting = (chains - np.arange(writers + 1)) * seconds
        return float((_binomial(writers, self.survival) @ waiting).sum())

    def steps(self, writers: int) -> float:
        """Expected steps until the last of so many segments is written; 0 for none."""
        return float((1 - (1 - self.survival) ** writers).sum())


def _binomial(n: int, p: Floats) -> Floats:
    """[len(p), n + 1] chances of 0 to n successes."""
    from scipy.stats import binom

    chances: Floats = binom.pmf(np.arange(n + 1), n, p[:, None])
    return chances


@dataclass(frozen=True, slots=True)
class Prediction:
    """A question's terms, in seconds."""

    T_c_s: float
    T_m_s: float
    T_s_s: float

    @property
    def r(self) -> float | None:
        return ratio(self.T_c_s, self.T_m_s, self.T_s_s)


@dataclass(frozen=True, slots=True)
class Predictor:
    """What one run says, in the terms of the module's text; see `fit`.

    alive               [turns] share of chains that come to a turn
    compute_s, caches_s [turns] T_c, and T_m without the weights that drafting and takeover read, of a chain in a turn
    takeover            share of segments that are taken over
    score_s             seconds from a segment's end to its score
    """

    draft: Writer
    target: Writer
    alive: Floats
    compute_s: Floats
    caches_s: Floats
    takeover: float
    score_s: float

    @classmethod
    def fit(cls, records: Sequence[ChainRecord], draft: Role, target: Role) -> Predictor:
        """From a run of any policy that drafts and scores, without further attempts. Raises InputError where it did
        not, or did not count."""
        calls = [call for record in records for call in record.calls if call.t_start_s is not None]
        scored = [call for call in calls if call.kind == "score"]
        if not scored or any(call.attempt or call.flops is None or call.bytes is None for call in calls):
            raise InputError(
                "this run cannot predict r: it takes one that drafts and scores once a turn, with --profiler on"
            )
        turns = 1 + max(call.turn for call in calls)
        reached = np.array([sum(call.turn == turn for call in scored) for turn in range(turns)], dtype=np.float64)
        compute, caches = np.zeros(turns), np.zeros(turns)
        for call in calls:
            role = draft if call.engine == "draft" else target
            compute[call.turn] += (call.flops or 0) / role.peak.flops_per_s
            moved = role.caches_bytes(call) if call.kind in ("draft", "takeover") else call.bytes or 0.0
            caches[call.turn] += moved / role.peak.bytes_per_s
        waits = [call.t_end_s - call.t_queued_s for call in scored if call.t_end_s is not None]
        lengths = {kind: [max(1, c.tokens_new) for c in calls if c.kind == kind] for kind in ("draft", "takeover")}
        return cls(
            Writer.of(lengths["draft"], draft.step_s, draft.weights_s),
            Writer.of(lengths["takeover"], target.step_s, target.weights_s),
            reached / len(records),
            compute / np.maximum(reached, 1),
            caches / np.maximum(reached, 1),
            len(lengths["takeover"]) / len(scored),
            float(np.median(waits)),
        )

    def predict(self, policy: str, chains: int, turns: int, alpha: float | None = None) -> Prediction:
        """A question of `chains` chains over its first `turns` turns, at the barrier or under a policy without one.

        `alpha` is the takeover rate, by default the run's own; T_c and the caches' part of T_m stay those of the run.

        Raises InputError for a policy that does not draft and score, and for more turns than the run had.
        """
        kind = POLICIES.get(policy)
        if kind is None or not (kind.drafts and kind.scores and kind.action.takes_over) or kind.one_model:
            raise InputError(f"cannot predict r under {policy!r}: only policies of two models that draft and score")
        if not 1 <= turns <= len(self.alive) or chains < 1:
            raise InputError(f"cannot predict {chains} chains over {turns} turns from a run of {len(self.alive)} turns")
        living = chains * self.alive[:turns]
        compute_s = float(living @ self.compute_s[:turns])
        rate = self.takeover if alpha is None else alpha
        weights_s, stalled_s = self._barrier(chains, turns, rate) if policy == "barrier" else self._free(living, rate)
        return Prediction(compute_s, float(living @ self.caches_s[:turns]) + weights_s, stalled_s)

    def _barrier(self, chains: int, turns: int, rate: float) -> tuple[float, float]:
        """Weights and stall: each turn waits for the last draft and then for the last takeover."""
        weights, stalled = np.zeros(chains + 1), np.zeros(chains + 1)
        for living in range(1, chains + 1):
            taken = round(rate * living)
            for writer, writers in ((self.draft, living), (self.target, taken)):
                weights[living] += writer.steps(writers) * writer.weights_s
                stalled[living] += writer.stall_s(living, writers)
        chances = _binomial(chains, self.alive[:turns])
        return float((chances @ weights).sum()), float((chances @ stalled).sum())

    def _free(self, living: Floats, rate: float) -> tuple[float, float]:
        """Weights by how full the batches are; nobody stalls."""
        weights_s = 0.0
        for chains in living.tolist():
            rows = self.rows(chains, rate)
            for writer, segments, at in ((self.draft, chains, rows[0]), (self.target, chains * rate, rows[1])):
                weights_s += segments * writer.tokens / _together(at, chains) * writer.weights_s
        return weights_s, 0.0

    def rows(self, chains: float, rate: float) -> tuple[float, float]:
        """Mean rows that draft and that take over, of so many chains that go round without waiting for each other, a
        share `rate` of their segments being taken over."""
        drafting, taking = chains, 0.0
        for _ in range(_ROUNDS):
            draft_s = self.draft.tokens * self.draft.step_s(_together(drafting, chains))
            take_s = rate * self.target.tokens * self.target.step_s(_together(taking, chains))
            round_s = draft_s + self.score_s + take_s
            # Half a step each time: whole ones may swing between two states.
            drafting += (chains * draft_s / round_s - drafting) / 2
            taking += (chains * take_s / round_s - taking) / 2
        return drafting, taking


def _together(rows: float, chains: float) -> float:
    """Rows of a step, which has at least one, where each of `chains` is there or not on its own, `rows` on average."""
    none = (1 - min(1.0, rows / chains)) ** chains if chains else 1.0
    return max(1.0, rows / (1 - none)) if none < 1 else 1.0


@dataclass(frozen=True, slots=True)
class Role:
    """What `Predictor.fit` must know of a model beside the records."""

    rates: Rates
    peak: DevicePeak
    step_s: Callable[[float], float]

    @property
    def weights_s(self) -> float:
        return self.rates.weight_bytes(1, 1) / self.peak.bytes_per_s

    def caches_bytes(self, call: CallRecord) -> float:
        """Bytes of a writing call but for the weights of its steps."""
        context, n = (call.tokens_cached or 0) + call.tokens_prefilled, call.tokens_new
        return self.rates.kv_bytes * (n * context + n * (n + 1) / 2 + n) + (call.prefill_bytes or 0.0)
