"""Calls on their way through the embedded engine: what each still has to feed, and what it makes of the logits."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from atts_runtime.control.events import ChainId
from atts_runtime.engines.base import EngineError, GenerateCall, Generated, Piece, ScoreCall, Scored, Usage
from atts_runtime.engines.causal_lm import CausalLM
from atts_runtime.engines.chains import Held
from atts_runtime.engines.meter import Joined, Part
from atts_runtime.engines.request import request
from atts_runtime.engines.sampling import stream

Reply = Callable[[Generated | Scored | EngineError], None]


@dataclass(slots=True, eq=False)
class Job:
    """Ids to feed for a chain, and the KV they go on. `full`: every id; those before `context` are not its own.

    On its own it computes a prompt, for the chains that will share it; `usage` is that of the call it is charged to.
    """

    prompt: tuple[int, ...]
    full: list[int]
    context: int
    usage: Usage
    held: Held = field(default_factory=Held)
    dropped: bool = False

    @property
    def unfed(self) -> int:
        """Ids that the chain's KV does not hold yet."""
        return len(self.full) - len(self.held.ids)

    def see(self, feed: list[int], logits: torch.Tensor) -> None:
        """Take what it needs from the logits [fed, vocab] of ids about to be added to `held`."""

    def parts(self, new_tokens: int) -> tuple[Part, ...]:
        """What the next so many ids are: context, whose last id's logits are needed, or the call's own to be scored."""
        start = len(self.held.ids)
        context = min(new_tokens, max(0, self.context - start))
        parts = []
        if context:
            parts.append(Part(self.usage, "prefill", context, int(start + context == self.context)))
        if new_tokens > context:
            parts.append(Part(self.usage, "score", new_tokens - context, new_tokens - context))
        return tuple(parts)


@dataclass(slots=True, eq=False, kw_only=True)
class CallJob(Job):
    """A job that somebody waits for."""

    chain: ChainId
    reply: Reply

    def start(self) -> None:
        """Note what is held and what must be fed for the call's context, now that `held` is known."""
        held = len(self.held.ids)
        self.usage.tokens_cached = min(held, self.context)
        self.usage.tokens_prefilled = max(0, self.context - held)
        self.usage.tokens_recomputed = max(0, min(self.held.seen, self.context) - held)
        self.usage.t_start_s = time.perf_counter()


@dataclass(slots=True, eq=False, kw_only=True)
class ScoreJob(CallJob):
    """Scores the ids from `context` on, and the end of text after them if the segment has one."""

    eos: bool
    nll: list[torch.Tensor] = field(default_factory=list)

    def see(self, feed: list[int], logits: torch.Tensor) -> None:
        start = len(self.held.ids)
        if start == self.context < len(self.full) and not self.nll and self.held.logits is not None:
            self._score(self.held.logits[None], [self.full[start]])
        first, last = max(self.context, start + 1), min(start + len(feed), len(self.full) - 1)
        if first <= last:
            self._score(logits[first - 1 - start : last - start], self.full[first : last + 1])

    def _score(self, logits: torch.Tensor, ids: list[int]) -> None:
        log_p = torch.log_softmax(logits.float(), dim=-1)
        self.nll.append(-log_p.gather(1, torch.tensor(ids, device=logits.device)[:, None])[:, 0])

    def result(self, lm: CausalLM) -> Scored | EngineError:
        """The mean over all scored tokens; an error where it is not finite."""
        if self.eos and self.held.logits is not None:
            # A piece does not say which of its model's end-of-text tokens was drawn: their probabilities add up.
            log_p = torch.log_softmax(self.held.logits.float(), dim=-1)
            self.nll.append(-log_p[sorted(lm.eos_ids)].logsumexp(0, keepdim=True))
        nll = torch.cat(self.nll).double()
        self.usage.tokens_new = len(nll)
        self.usage.t_end_s = time.perf_counter()
        ell = float(nll.mean())
        return Scored(ell, self.usage) if math.isfinite(ell) else EngineError(f"the model scored the segment {ell}")


@dataclass(slots=True, eq=False, kw_only=True)
class GenerateJob(CallJob):
    """Continues `full`, one drawn token a decode step."""

    call: GenerateCall
    uniforms: list[float]
    out: list[int] = field(default_factory=list)
    full_up: bool = False
    joined: Joined | None = None

    @property
    def next_input(self) -> int:
        """The id to feed in the next decode step."""
        return self.out[-1] if self.out else self.full[-1]

    def grow(self, token: int, lm: CausalLM) -> bool:
        """Append a drawn token; whether the call is complete with it."""
        self.out.append(token)
        self.full_up = lm.is_full(len(self.full) + len(self.out))
        if self.full_up or self.ended(lm) or len(self.out) == self.call.max_tokens:
            return True
        stop = self.call.stop
        return stop is not None and token in lm.may_end(stop) and stop in lm.decode(self.out[-2 * len(stop) :])

    def ended(self, lm: CausalLM) -> bool:
        """Whether the last token was an end of text, which no piece keeps."""
        return bool(self.out) and self.out[-1] in lm.eos_ids

    def result(self, lm: CausalLM) -> Generated:
        """The piece that was written."""
        eos = self.ended(lm)
        out = self.out[:-1] if eos else self.out
        self.usage.tokens_new = len(self.out)
        self.usage.t_end_s = time.perf_counter()
        return Generated(Piece(lm.decode(out), tuple(out), lm.vocab, eos), self.full_up or not self.out, self.usage)


def make_job(call: GenerateCall | ScoreCall, lm: CausalLM, reply: Reply, usage: Usage) -> ScoreJob | GenerateJob:
    """A call in ids; raises EngineError where the model cannot take it."""
    ids = request(call, lm, lm.max_context_tokens)
    if isinstance(call, ScoreCall):
        return ScoreJob(ids.prompt, ids.full, ids.context, usage, chain=call.chain, reply=reply, eos=ids.eos)
    uniforms = stream(call.seed, call.max_tokens).tolist()
    return GenerateJob(
        ids.prompt, ids.full, ids.context, usage, chain=call.chain, reply=reply, call=call, uniforms=uniforms
    )
