"""Continuous batching for the embedded engine: which calls run in the next forward pass, and what they yield.

Runs in the engine's own thread and knows no asyncio. Two kinds of forward pass alternate while there is work:

append  feeds each call what the model has not seen: a prompt, a takeover that another model wrote, a segment
        to score. Pending scores go together.
decode  one token for every generating row. Rows join and leave between steps; a row whose next token is
        already known (a single unseen id, or kept logits) joins without an append.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from atts_runtime.control.events import ChainId
from atts_runtime.engines.base import EngineError, EngineStats, GenerateCall, Generated, Piece, ScoreCall, Scored, Usage
from atts_runtime.engines.causal_lm import CausalLM
from atts_runtime.engines.chains import ChainStore, Held, common_prefix
from atts_runtime.engines.sampling import sample, stream

# Counting KV walks all chains, so without a budget to keep it is done only so often.
_COUNT_KV_EVERY = 16

Reply = Callable[[Generated | Scored | EngineError], None]


@dataclass(slots=True)
class Job:
    """A call on its way through the engine: `full` is every id to feed, `context` where a segment to score begins."""

    call: GenerateCall | ScoreCall
    reply: Reply
    usage: Usage
    prompt: tuple[int, ...] = ()
    full: list[int] = field(default_factory=list)
    context: int = 0
    full_up: bool = False
    held: Held | None = None
    nll: list[torch.Tensor] = field(default_factory=list)
    uniforms: list[float] = field(default_factory=list)
    out: list[int] = field(default_factory=list)
    dropped: bool = False


class Worker:
    """One model's scheduler. `submit` and `drop` from any thread that holds the lock of the caller; `step` from one."""

    def __init__(self, lm: CausalLM, *, max_rows: int, kv_budget_tokens: int | None) -> None:
        self.lm, self.max_rows, self.kv_budget_tokens = lm, max_rows, kv_budget_tokens
        self.reset()
        self._scores: deque[Job] = deque()
        self._generates: deque[Job] = deque()
        self._appending: list[Job] = []
        self._rows: list[Job] = []
        self._decode_kv, self._append_kv = lm.buffer(), lm.buffer()
        self._stop_ids: dict[str, frozenset[int]] = {}

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        return bool(self._scores or self._generates or self._appending or self._rows)

    def add(self, job: Job) -> None:
        """Take a call in; its ids are worked out here, off the event loop."""
        call, lm = job.call, self.lm
        job.prompt = tuple(lm.encode_prompt(call.prompt))
        pieces = [piece.ids_in(lm.vocab, lm.encode) for piece in call.pieces]
        job.full = [*job.prompt, *(i for piece in pieces for i in piece)]
        limit = lm.max_context_tokens
        if not job.prompt:
            job.reply(EngineError("the prompt has no tokens"))
        elif isinstance(call, GenerateCall):
            job.context = len(job.full)
            job.uniforms = stream(call.seed, call.max_tokens).tolist()
            if limit is not None and len(job.full) >= limit:
                self._generated(job)
            else:
                self._generates.append(job)
        else:
            job.context = len(job.full) - len(pieces[-1])
            if job.context == len(job.full) and not call.pieces[-1].eos:
                job.reply(EngineError("empty segment: there is nothing to score"))
            elif limit is not None and len(job.full) > limit:
                job.reply(EngineError(f"context of {len(job.full)} tokens exceeds the model's {limit}"))
            else:
                self._scores.append(job)

    def drop(self, job: Job) -> None:
        """Nobody waits for this call any more."""
        job.dropped = True

    def reset(self) -> None:
        """Forget all chains and totals; open calls go on."""
        self.store = ChainStore(self.kv_budget_tokens)
        self.stats = EngineStats()

    def step(self) -> None:
        """At most one append and one decode pass."""
        start = time.perf_counter()
        with torch.inference_mode():
            self._schedule()
            if self._appending:
                self._append()
            if self._rows:
                self._decode()
        stats, store = self.stats, self.store
        if self.kv_budget_tokens is not None or stats.steps % _COUNT_KV_EVERY == 0:
            store.settle()
            stats.evictions, stats.kv_tokens, stats.kv_peak_tokens = (
                store.evictions,
                store.held_tokens,
                store.peak_tokens,
            )
        stats.busy_s += time.perf_counter() - start

    def fail_all(self, error: EngineError) -> None:
        """Answer every open call with `error`."""
        jobs = [*self._scores, *self._generates, *self._appending, *self._rows]
        self._scores.clear()
        self._generates.clear()
        self._appending, self._rows = [], []
        for job in jobs:
            if job.held is not None:
                job.held.busy = False
            job.reply(error)

    # -- scheduling

    def _schedule(self) -> None:
        """Let waiting calls in: to an append, or straight into the decode batch. Scores are always let in."""
        self._admit(self._scores, len(self._scores))
        joining = sum(isinstance(job.call, GenerateCall) for job in self._appending)
        self._admit(self._generates, self.max_rows - len(self._rows) - joining)

    def _admit(self, queue: deque[Job], room: int) -> None:
        """Try the first `room` calls of a queue; those whose prompt or chain is not ready keep their place."""
        blocked = []
        for _ in range(min(room, len(queue))):
            job = queue.popleft()
            if job.dropped:
                continue
            if not self._attach(job):
                blocked.append(job)
                continue
            job.usage.t_start_s = time.perf_counter()
            if self._unfed(job) == 0 and isinstance(job.call, ScoreCall):
                self._scored(job)
            elif self._unfed(job) <= 1 and isinstance(job.call, GenerateCall):
                self._join(job)
            else:
                self._appending.append(job)
        queue.extendleft(reversed(blocked))

    def _attach(self, job: Job) -> bool:
        """Give the job its chain's KV, cropped to what it shares with the job; False while its prompt is not ready."""
        held = self.store.chain(job.call.chain)
        if held is None or not held.ids:
            prompt = self.store.prompt(job.prompt)
            if prompt.kv is None:
                if not prompt.busy:
                    self._start_prompt(job.prompt, prompt)
                return False
            seen = held.seen if held is not None else 0
            held = self.store.open(job.call.chain, prompt)
            held.seen = max(held.seen, seen)
        elif held.busy:
            return False
        shared = common_prefix(held.ids, job.full)
        held.crop(shared)
        needs_logits = job.context if isinstance(job.call, ScoreCall) else len(job.full)
        if shared > needs_logits or (shared == needs_logits and held.logits is None):
            held.crop(needs_logits - 1)
        held.busy = True
        job.held = held
        fed = len(job.full) - len(held.ids)
        context_fed = max(0, job.context - len(held.ids))
        job.usage.tokens_cached = min(len(held.ids), job.context)
        job.usage.tokens_prefilled = context_fed
        job.usage.tokens_recomputed = max(0, min(held.seen, job.context) - len(held.ids))
        self.stats.prefilled_tokens += fed
        return True

    def _start_prompt(self, ids: tuple[int, ...], prompt: Held) -> None:
        prompt.busy = True
        call = ScoreCall(ChainId(-1, -1), "", ())
        self._appending.append(Job(call, lambda _: None, Usage(0.0), ids, list(ids), len(ids), held=prompt))

    def _unfed(self, job: Job) -> int:
        assert job.held is not None
        return len(job.full) - len(job.held.ids)

    # -- append

    def _append(self) -> None:
        """Feed unseen ids, at most `step_tokens` of them padding included; longer work goes on in the next pass."""
        self._appending = [job for job in self._appending if not job.dropped or self._let_go(job)]
        batch: list[Job] = []
        width = 0
        for job in self._appending:
            wider = max(width, min(self._unfed(job), self.lm.step_tokens))
            if batch and wider * (len(batch) + 1) > self.lm.step_tokens:
                break
            batch.append(job)
            width = wider
        if not batch:
            return
        helds = [job.held for job in batch if job.held is not None]
        starts = [len(held.ids) for held in helds]
        feeds = [job.full[s : s + width] for job, s in zip(batch, starts, strict=True)]
        self._append_kv.reserve(len(batch), max(starts) + width)
        for row, held in enumerate(helds):
            self._append_kv.put(row, held.kv)
        logits = self.lm.forward(self._append_kv, feeds, starts, every=True)
        self.stats.steps += 1
        for row, (job, held, feed) in enumerate(zip(batch, helds, feeds, strict=True)):
            self._take_nll(job, held, feed, logits[row])
            held.ids = held.ids + feed
            held.kv = self._append_kv.park(row, len(held.ids))
            held.logits = logits[row, len(feed) - 1].clone()
            held.seen, held.shared = max(held.seen, len(held.ids)), False
            if self._unfed(job) == 0:
                self._appending.remove(job)
                self._appended(job)

    def _let_go(self, job: Job) -> bool:
        if job.held is not None:
            job.held.busy = False
        return False

    def _take_nll(self, job: Job, held: Held, feed: list[int], logits: torch.Tensor) -> None:
        """Negative log-likelihoods of the segment ids that this pass predicts, kept logits included."""
        if job.context >= len(job.full):
            return
        start = len(held.ids)
        if start == job.context and held.logits is not None:
            self._nll(job, held.logits[None], [job.full[start]])
        first, last = max(job.context, start + 1), min(start + len(feed), len(job.full) - 1)
        if first <= last:
            self._nll(job, logits[first - 1 - start : last - start], job.full[first : last + 1])

    def _nll(self, job: Job, logits: torch.Tensor, ids: list[int]) -> None:
        log_p = torch.log_softmax(logits.float(), dim=-1)
        job.nll.append(-log_p.gather(1, torch.tensor(ids, device=logits.device)[:, None])[:, 0])

    def _appended(self, job: Job) -> None:
        assert job.held is not None
        if not job.call.pieces and not job.call.prompt and isinstance(job.call, ScoreCall):
            job.held.busy = False  # a prompt, computed for the chains that share it
        elif isinstance(job.call, ScoreCall):
            self._scored(job)
        else:
            self._join(job)

    def _scored(self, job: Job) -> None:
        assert job.held is not None
        held = job.held
        if job.call.pieces[-1].eos and held.logits is not None:
            self._nll(job, held.logits[None], [min(self.lm.eos_ids)])
        held.busy = False
        nll = torch.cat(job.nll).double()
        job.usage.tokens_new = len(nll)
        job.usage.t_end_s = time.perf_counter()
        ell = float(nll.mean())
        if ell != ell or ell in (float("inf"), float("-inf")):
            job.reply(EngineError(f"the model scored the segment {ell}"))
        else:
            job.reply(Scored(ell, job.usage))

    # -- decode

    def _join(self, job: Job) -> None:
        """Enter the decode batch. With kept logits the first token is drawn here and may already be the last."""
        assert job.held is not None
        assert isinstance(job.call, GenerateCall)
        held = job.held
        if self._unfed(job) == 0:
            assert held.logits is not None
            token = sample(held.logits[None], [job.call.temperature], [job.uniforms[0]])[0]
            if self._grow(job, token):
                held.busy = False
                self._generated(job)
                return
        row = len(self._rows)
        self._decode_kv.reserve(row + 1, len(held.ids) + 1)
        self._decode_kv.put(row, held.kv)
        held.kv = held.logits = None
        self._rows.append(job)

    def _decode(self) -> None:
        for row in reversed(range(len(self._rows))):
            if self._rows[row].dropped:
                self._leave(row)
        if not self._rows:
            return
        jobs = list(self._rows)
        feeds, starts = [], []
        for job in jobs:
            assert job.held is not None
            feeds.append([job.out[-1] if job.out else job.full[-1]])
            starts.append(len(job.held.ids))
        logits = self.lm.forward(self._decode_kv, feeds, starts, every=False)[:, -1]
        self.stats.steps += 1
        self.stats.decode_steps += 1
        self.stats.decode_rows += len(jobs)
        uniforms = [job.uniforms[len(job.out)] for job in jobs]
        tokens = sample(logits, [job.call.temperature for job in jobs if isinstance(job.call, GenerateCall)], uniforms)
        finished = []
        for row, (job, feed, token) in enumerate(zip(jobs, feeds, tokens, strict=True)):
            assert job.held is not None
            job.held.ids.append(feed[0])
            if self._grow(job, token):
                finished.append(row)
        for row in reversed(finished):
            job = self._rows[row]
            if self._ended(job) and job.held is not None:
                job.held.logits = logits[row].clone()
            self._leave(row)
            self._generated(job)

    def _leave(self, row: int) -> None:
        """Park a row's KV and close the gap with the last row."""
        job, last = self._rows[row], len(self._rows) - 1
        assert job.held is not None
        length = len(job.held.ids)
        job.held.kv = self._decode_kv.park(row, length)
        job.held.seen, job.held.shared, job.held.busy = max(job.held.seen, length), False, False
        if row != last:
            moved = self._rows[last]
            assert moved.held is not None
            self._decode_kv.move(last, row, len(moved.held.ids))
            self._rows[row] = moved
        self._rows.pop()

    def _grow(self, job: Job, token: int) -> bool:
        """Append a drawn token; whether the call is complete with it."""
        assert isinstance(job.call, GenerateCall)
        job.out.append(token)
        limit = self.lm.max_context_tokens
        job.full_up = limit is not None and len(job.full) + len(job.out) >= limit
        at_end = token in self.lm.eos_ids or job.full_up
        return at_end or len(job.out) == job.call.max_tokens or self._stops(job, token)

    def _stops(self, job: Job, token: int) -> bool:
        assert isinstance(job.call, GenerateCall)
        stop = job.call.stop
        if stop is None or token not in self._may_stop(stop):
            return False
        return stop in self.lm.decode(job.out[-2 * len(stop) :])

    def _may_stop(self, stop: str) -> frozenset[int]:
        """Ids whose text holds the last character of `stop`: only after those can it have just appeared."""
        if stop not in self._stop_ids:
            vocab = range(len(self.lm.tokenizer))
            texts = self.lm.tokenizer.batch_decode([[i] for i in vocab])
            self._stop_ids[stop] = frozenset(i for i, text in zip(vocab, texts, strict=True) if stop[-1] in text)
        return self._stop_ids[stop]

    def _generated(self, job: Job) -> None:
        eos = self._ended(job)
        out = job.out[:-1] if eos else job.out
        job.usage.tokens_new = len(job.out)
        job.usage.t_end_s = time.perf_counter()
        piece = Piece(self.lm.decode(out), tuple(out), self.lm.vocab, eos)
        job.reply(Generated(piece, job.full_up or not job.out, job.usage))

    def _ended(self, job: Job) -> bool:
        """Whether the call closed with an end-of-text token, which no piece keeps."""
        return bool(job.out) and job.out[-1] in self.lm.eos_ids
