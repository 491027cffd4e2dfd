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

import torch

from atts_runtime.engines.base import EngineError, EngineStats, GenerateCall, Generated, ScoreCall, Scored, Usage
from atts_runtime.engines.causal_lm import CausalLM
from atts_runtime.engines.chains import ChainStore, Held, common_prefix
from atts_runtime.engines.jobs import CallJob, GenerateJob, Job, Reply, ScoreJob, make_job
from atts_runtime.engines.meter import Meter
from atts_runtime.engines.rows import RowGroups
from atts_runtime.engines.sampling import sample
from atts_runtime.profiler.counts import Rates

# Counting KV walks all chains, so without a budget to keep it is done only so often.
_COUNT_KV_EVERY = 16


class Worker:
    """One model's scheduler; everything is called from one thread. Without `rates` its steps are not counted."""

    def __init__(
        self, lm: CausalLM, *, max_rows: int, kv_budget_tokens: int | None, rates: Rates | None = None
    ) -> None:
        self.lm, self.max_rows, self.kv_budget_tokens, self._rates = lm, max_rows, kv_budget_tokens, rates
        self._rows: list[GenerateJob] = []
        self.reset()
        self._open: set[CallJob] = set()
        self._scores: deque[CallJob] = deque()
        self._generates: deque[CallJob] = deque()
        self._appending: list[Job] = []
        self._awaited: set[Held] = set()
        self._append_kv, self._groups = lm.buffer(), RowGroups(lm)

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        return bool(self._scores or self._generates or self._appending or self._rows)

    def add(self, call: GenerateCall | ScoreCall, reply: Reply, usage: Usage) -> CallJob | None:
        """Take a call in; None where it was answered at once. Its ids are worked out here, off the event loop."""
        if self.meter is not None:
            self.meter.open(usage)
        try:
            job = make_job(call, self.lm, reply, usage)
        except EngineError as error:
            reply(error)
            return None
        self._open.add(job)
        if isinstance(job, ScoreJob):
            self._scores.append(job)
        elif self.lm.is_full(len(job.full)):
            self._answer(job, job.result(self.lm))
        else:
            self._generates.append(job)
        return job

    def drop(self, job: CallJob) -> None:
        """Nobody waits for this call any more."""
        job.dropped = True
        self._open.discard(job)

    def reset(self, *, counted: bool = True) -> None:
        """Forget all chains and totals; open calls go on. From here on steps are counted, or not."""
        self.store = ChainStore(self.kv_budget_tokens)
        self.stats = EngineStats()
        self.meter = Meter(self._rates, self.stats) if counted and self._rates is not None else None
        for job in self._rows:
            job.joined = None  # it did so in another meter's time

    def step(self) -> None:
        """At most one append and one decode pass."""
        start = time.perf_counter()
        meter = self.meter
        if meter is not None:
            meter.begin(start)
        with torch.inference_mode():
            self._schedule()
            if self._appending:
                self._append()
                if meter is not None:
                    meter.lap()
            if self._rows:
                self._decode()
        self._count_kv()
        if meter is not None:
            meter.lap()
        self.stats.busy_s += time.perf_counter() - start

    def fail_all(self, error: EngineError) -> None:
        """Answer every open call with `error`, wherever a step was left. What their chains hold is not trusted."""
        jobs: set[Job] = {*self._open, *self._appending, *self._rows}
        self._scores.clear()
        self._generates.clear()
        self._appending, self._rows = [], []
        self._groups.clear()
        for job in jobs:
            job.held.clear()
            job.held.busy = False
            if isinstance(job, CallJob):
                self._answer(job, error)

    def _answer(self, job: CallJob, result: Generated | Scored | EngineError) -> None:
        self._open.discard(job)
        job.reply(result)

    def _count_kv(self) -> None:
        stats, store = self.stats, self.store
        if self.kv_budget_tokens is None and stats.steps % _COUNT_KV_EVERY:
            return
        store.settle(self._awaited)
        stats.evictions = store.evictions
        stats.kv_tokens, stats.kv_peak_tokens = store.held_tokens, store.peak_tokens

    # -- scheduling

    def _schedule(self) -> None:
        """Let waiting calls in: to an append, or straight into the decode batch. Scores are always let in."""
        self._awaited.clear()
        self._admit(self._scores, len(self._scores))
        joining = sum(isinstance(job, GenerateJob) for job in self._appending)
        self._admit(self._generates, self.max_rows - len(self._rows) - joining)

    def _admit(self, queue: deque[CallJob], room: int) -> None:
        """Try the first `room` calls of a queue; those whose prompt or chain is not ready keep their place."""
        blocked = []
        for _ in range(min(room, len(queue))):
            job = queue.popleft()
            if job.dropped:
                continue
            if not self._attach(job):
                blocked.append(job)
                continue
            job.start()
            if job.unfed > isinstance(job, GenerateJob):  # a single unseen id goes with the decode batch
                self._appending.append(job)
            else:
                self._fed(job)
        queue.extendleft(reversed(blocked))

    def _attach(self, job: CallJob) -> bool:
        """Give the job its chain's KV, cropped to what it shares with the job; False while its prompt is not ready."""
        held = self.store.chain(job.chain)
        if held is None or not held.ids:
            prompt = self.store.prompt(job.prompt)
            if prompt.kv is None or prompt.busy:  # a long prompt takes several appends
                if not prompt.busy:
                    prompt.busy = True
                    self._appending.append(Job(job.prompt, list(job.prompt), len(job.prompt), job.usage, prompt))
                self._awaited.add(prompt)
                return False
            seen = held.seen if held is not None else 0
            held = self.store.open(job.chain, prompt)
            held.seen = max(held.seen, seen)
        elif held.busy:
            return False
        shared = common_prefix(held.ids, job.full)
        if shared < len(held.ids):
            held.seen = shared  # the rest is no longer this chain's text, and not lost
        held.crop(shared)
        if shared > job.context or (shared == job.context and held.logits is None):
            held.crop(job.context - 1)  # the logits that predict the job's first own id are needed
        held.busy = True
        job.held = held
        return True

    def _fed(self, job: Job) -> None:
        """All of the job's ids are held."""
        if isinstance(job, GenerateJob):
            self._join(job)
            return
        if isinstance(job, ScoreJob):
            self._answer(job, job.result(self.lm))
        job.held.busy = False

    # -- append

    def _append(self) -> None:
        """Feed unseen ids, at most `step_tokens` of them padding included; longer work goes on in the next pass."""
        for job in self._appending:
            if job.dropped:
                job.held.busy = False
        self._appending = [job for job in self._appending if not job.dropped]
        batch: list[Job] = []
        width = 0
        for job in self._appending:
            wider = max(width, min(job.unfed, self.lm.step_tokens))
            if batch and wider * (len(batch) + 1) > self.lm.step_tokens:
                break
            batch.append(job)
            width = wider
        if not batch:
            return
        starts = [len(job.held.ids) for job in batch]
        feeds = [job.full[start : start + width] for job, start in zip(batch, starts, strict=True)]
        self._append_kv.reserve(len(batch), max(starts) + width)
        for row, job in enumerate(batch):
            self._append_kv.put(row, job.held.kv)
        logits, executed = self.lm.append_pass(self._append_kv, feeds, starts)
        self.stats.steps += 1
        self.stats.prefilled_tokens += sum(map(len, feeds))
        if self.meter is not None:
            parts = [job.parts(len(feed)) for job, feed in zip(batch, feeds, strict=True)]
            self.meter.append(starts, parts, executed)
        for row, (job, feed) in enumerate(zip(batch, feeds, strict=True)):
            job.see(feed, logits[row])
            held = job.held
            held.ids = held.ids + feed
            held.kv = self._append_kv.park(row, len(held.ids))
            held.logits = logits[row, len(feed) - 1].clone()
            held.seen, held.shared = max(held.seen, len(held.ids)), False
        for job in batch:
            if not job.unfed:
                self._appending.remove(job)
                self._fed(job)

    # -- decode

    def _join(self, job: GenerateJob) -> None:
        """Enter the decode batch. With kept logits the first token is drawn here and may already be the last."""
        held = job.held
        if not job.unfed:
            assert held.logits is not None
            token = sample(held.logits[None], [job.call.temperature], [job.uniforms[0]])[0]
            if job.grow(token, self.lm):
                held.busy = False
                self._answer(job, job.result(self.lm))
                return
        self._groups.join(job, held.kv)
        held.kv = held.logits = None
        if self.meter is not None:
            job.joined = self.meter.joined(len(held.ids))
        self._rows.append(job)

    def _decode(self) -> None:
        """One token for every row; finished rows leave."""
        for row in reversed(range(len(self._rows))):
            if self._rows[row].dropped:
                self._leave(row)
        if not self._rows:
            return
        jobs = self._groups.jobs()
        feeds, starts = [job.next_input for job in jobs], [len(job.held.ids) for job in jobs]
        logits, executed = self.lm.decode_pass(self._groups.grouped(), feeds, starts)
        if self.meter is not None:
            self.meter.decode(starts, executed)
        self.stats.steps += 1
        self.stats.decode_steps += 1
        self.stats.decode_rows += len(jobs)
        uniforms = [job.uniforms[len(job.out)] for job in jobs]
        tokens = sample(logits, [job.call.temperature for job in jobs], uniforms)
        finished: dict[GenerateJob, int] = {}
        for at, (job, feed, token) in enumerate(zip(jobs, feeds, tokens, strict=True)):
            job.held.ids.append(feed)
            if job.grow(token, self.lm):
                finished[job] = at
        for row in reversed(range(len(self._rows))) if finished else ():
            job = self._rows[row]
            if job not in finished:
                continue
            if job.ended(self.lm):
                job.held.logits = logits[finished[job]].clone()
            self._leave(row)
            self._answer(job, job.result(self.lm))

    def _leave(self, row: int) -> None:
        """Park a row's KV; the last row takes its place."""
        job = self._rows[row]
        held, length = job.held, len(job.held.ids)
        if self.meter is not None and job.joined is not None:
            self.meter.left(job.joined, length, job.usage)
        held.kv = self._groups.leave(job)
        last = self._rows.pop()
        held.seen, held.shared, held.busy = max(held.seen, length), False, False
        if job is not last:
            self._rows[row] = last
