"""The embedded engine's continuous batching under a simulated clock, fast.

The rules are those of `atts_sim.reference`, which is `atts_runtime.engines.worker` in tokens: an append and a decode
pass alternate, scores are always let in, prompts are computed once, KV is kept by chain. What differs is when Python
runs. Between two changes of the decode batch nothing is decided, so all those steps are one event whose time is a
closed form; a message that comes in between cuts the run at the end of the step in which it came, which is when the
real engine would look at it.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Literal

from atts_runtime.control.events import ChainId
from atts_sim.calls import EngineCall, EngineSpec, Totals
from atts_sim.clock import Clock, Tick, begin_priority, end_priority
from atts_sim.cost import DecodeRuns, StepCost, StepShape
from atts_sim.memory import Held, KvLedger

_Message = tuple[Literal["drop"], EngineCall] | tuple[Literal["release"], ChainId]


class _Job:
    """A call, or a prompt to compute (`call` None). In the decode batch it stands in `row` (-1: in none) and keeps
    `offset` tokens more than the engine has made steps."""

    __slots__ = ("call", "full", "generates", "held", "offset", "row")

    def __init__(self, full: int, call: EngineCall | None, held: Held | None = None) -> None:
        self.full, self.call = full, call
        self.generates = call is not None and call.kind != "score"
        if held is not None:
            self.held = held
        self.offset, self.row = 0, -1


class BatchingEngine:
    """A `SimEngine`. Between events it is idle, in a run of decode steps that a message may cut, or else bound: in a
    pass, or about to begin a step."""

    def __init__(self, clock: Clock, spec: EngineSpec, cost: StepCost) -> None:
        self.spec, self._totals = spec, Totals()
        self._clock, self._cost, self._runs = clock, cost, DecodeRuns(cost)
        self._rank = clock.rank()
        self._end, self._begin = end_priority(self._rank), begin_priority(self._rank)
        self._kv = KvLedger(spec.kv_budget_tokens)
        self._inbox: list[_Job | _Message] = []
        self._scores: deque[_Job] = deque()
        self._generates: deque[_Job] = deque()
        self._appending: list[_Job] = []
        self._batch: list[_Job] = []
        self._fed_to: list[int] = []
        self._rows: list[_Job] = []
        self._finishes: list[tuple[int, int, _Job]] = []
        self._any_dropped = False
        self._offsets = self._longest = 0
        self._step = self._joins = 0
        self._idle, self._in_run = True, False
        self._tick: Tick | None = None
        self._run_start_s = self._run_s = 0.0
        self._run_steps = self._grown = 0
        self._may_undo = False

    @property
    def totals(self) -> Totals:
        """As of the last step that an event has completed."""
        kv = self._kv
        self._totals.evictions, self._totals.kv_tokens, self._totals.kv_peak_tokens = kv.evictions, kv.tokens, kv.peak
        return self._totals

    def submit(self, call: EngineCall) -> None:
        self._inbox.append(_Job(call.full_tokens, call))
        self._post()

    def cancel(self, call: EngineCall) -> None:
        self._inbox.append(("drop", call))
        self._post()

    def release(self, chain: ChainId) -> None:
        held = self._kv.holder(chain)
        if held is None and not self._inbox:
            return
        if self._idle:
            self._kv.release(chain)
            return
        if self._in_run and held is not None and not held.busy:
            # It changes no batch, so the run goes on: the ledger alone is brought up to the step that it comes in.
            steps, _ = self._boundary()
            if steps < self._run_steps:
                self._kv.grow(steps - self._grown)
                self._grown = steps
                self._kv.release(chain)
                return
        self._inbox.append(("release", chain))
        self._post()

    def _post(self) -> None:
        if self._idle:
            self._idle = False
            Tick(self._clock, 0.0, self._begin, self._on_begin)
        elif self._in_run:
            self._cut()

    # -- steps

    def _on_begin(self, tick: Tick) -> None:
        self._clock.begins(self._rank)
        self._take_messages()
        self._schedule()
        if not (self._appending and self._start_append()):
            self._decode()

    def _take_messages(self) -> None:
        for message in self._inbox:
            if isinstance(message, _Job):
                (self._generates if message.generates else self._scores).append(message)
            elif message[0] == "drop":
                message[1].dropped = self._any_dropped = True
            else:
                self._release(message[1])
        self._inbox.clear()

    def _release(self, chain: ChainId) -> None:
        held = self._kv.holder(chain)
        row = next((job for job in self._rows if job.held is held), None) if held and held.busy else None
        self._kv.release(chain, None if row is None else row.offset + self._step)

    def _schedule(self) -> None:
        """Let waiting calls in: to an append, or straight into the decode batch."""
        self._kv.awaited.clear()
        if self._scores:
            self._admit(self._scores, len(self._scores))
        if self._generates:
            joining = sum(job.generates for job in self._appending)
            self._admit(self._generates, self.spec.max_rows - len(self._rows) - joining)

    def _admit(self, queue: deque[_Job], room: int) -> None:
        blocked = []
        now = self._clock.now
        for _ in range(min(room, len(queue))):
            job = queue.popleft()
            call = job.call
            assert call is not None
            if call.dropped:
                continue
            held, prompt = self._kv.attach(call)
            if held is None:
                if prompt is not None:
                    self._appending.append(_Job(call.prompt_tokens, None, prompt))
                blocked.append(job)
                continue
            job.held = held
            call.t_start_s = now
            if job.full - held.tokens > job.generates:
                self._appending.append(job)
            else:
                self._fed(job)
        if blocked:
            queue.extendleft(reversed(blocked))

    def _fed(self, job: _Job) -> None:
        """All of the job's tokens are held."""
        call, held = job.call, job.held
        if call is not None and job.generates:
            left = call.new_tokens - (held.tokens == job.full)
            if left:
                self._join(job, left)
                return
        self._kv.park(held, prompt=call is None)
        if call is not None:
            self._answer(call)

    def _answer(self, call: EngineCall) -> None:
        call.t_end_s = self._clock.now
        call.on_done(call)

    def _after(self) -> None:
        """A step has ended: go on with the next."""
        if self._inbox or self._scores or self._generates or self._appending:
            Tick(self._clock, 0.0, self._begin, self._on_begin)
        elif self._rows:
            self._start_run(self._steps_left())
            self._may_undo = True
        else:
            self._idle = True

    # -- append

    def _start_append(self) -> bool:
        """Begin an append pass; False where everybody who wanted one has left."""
        if self._any_dropped:
            for job in self._appending:
                if job.call is not None and job.call.dropped:
                    self._kv.park(job.held)
            self._appending = [job for job in self._appending if job.call is None or not job.call.dropped]
        most = self.spec.step_tokens
        batch: list[_Job] = []
        width = 0
        for job in self._appending:
            unfed = job.full - job.held.tokens
            wider = max(width, min(unfed, most))
            if batch and wider * (len(batch) + 1) > most:
                break
            batch.append(job)
            width = wider
        if not batch:
            return False
        kept = new = longest = longest_new = pairs = 0
        fed = []
        for job in batch:
            start = job.held.tokens
            end = min(start + width, job.full)
            fed.append(end)
            feed = end - start
            kept += end
            new += feed
            pairs += feed * start + feed * (feed + 1) // 2
            longest = max(longest, end)
            longest_new = max(longest_new, feed)
        self._batch, self._fed_to = batch, fed
        shape = StepShape(len(batch), new, longest_new, kept, longest, new, pairs)
        seconds, inside = self._cost.cost("append", shape)
        totals = self._totals
        totals.steps += 1
        totals.busy_s += seconds
        totals.append_s += seconds
        if not inside:
            totals.outside_s += seconds
        totals.prefilled_tokens += new
        if new > totals.most_new:
            totals.most_new = new
        Tick(self._clock, seconds, self._end, self._on_appended)
        return True

    def _on_appended(self, tick: Tick) -> None:
        for job, tokens in zip(self._batch, self._fed_to, strict=True):
            self._kv.append(job.held, tokens)
        done = [job for job in self._batch if job.held.tokens == job.full]
        if len(done) == len(self._appending):
            self._appending.clear()
        else:
            for job in done:
                self._appending.remove(job)
        for job in done:
            self._fed(job)
        self._decode()

    # -- decode

    def _decode(self) -> None:
        """The step's decode pass; with nobody to decide about, further steps that consist of one."""
        if self._any_dropped:
            self._any_dropped = False
            for job in reversed(self._rows):
                if job.call is not None and job.call.dropped:
                    self._leave(job)
        if not self._rows:
            self._kv.settle()
            self._after()
            return
        waiting = self._generates and len(self._rows) < self.spec.max_rows
        bound = self._inbox or self._scores or self._appending or waiting
        self._start_run(1 if bound else self._steps_left())

    def _steps_left(self) -> int:
        """Decode steps until the first row is done."""
        finishes = self._finishes
        while finishes[0][2].row < 0:
            heappop(finishes)
        return finishes[0][0] - self._step

    def _start_run(self, steps: int) -> None:
        rows = len(self._rows)
        kept = self._offsets + rows * self._step
        self._run_s = self._runs.seconds(rows, kept, self._longest + self._step, steps)
        self._run_steps, self._run_start_s = steps, self._clock.now
        self._in_run, self._may_undo, self._grown = True, False, 0
        self._tick = Tick(self._clock, self._run_s, self._end, self._on_run)

    def _boundary(self) -> tuple[int, float]:
        """At how many steps of the run, and how long after its start, the engine would look at what comes now."""
        has_begun = self._clock.has_begun(self._rank)
        elapsed = self._clock.now - self._run_start_s
        if elapsed == 0.0 and self._may_undo and not has_begun:
            return 0, 0.0
        if self._run_steps == 1:
            return 1, self._run_s
        rows = len(self._rows)
        run = rows, self._offsets + rows * self._step, self._longest + self._step
        steps, seconds = self._runs.until(*run, self._run_steps, elapsed)
        if has_begun and seconds <= elapsed:
            steps += 1
            seconds = self._runs.seconds(*run, steps)
        return steps, seconds

    def _cut(self) -> None:
        """A message came: end the run with the step that is on its way."""
        self._in_run = False
        steps, seconds = self._boundary()
        if steps < self._run_steps:
            self._run_steps, self._run_s = steps, seconds
            delay_s = max(0.0, self._run_start_s + seconds - self._clock.now)
            self._tick = Tick(self._clock, delay_s, self._begin, self._on_cut)

    def _on_cut(self, tick: Tick) -> None:
        if self._run_steps:
            self._advance()
            self._kv.grow(self._run_steps - self._grown)
        self._on_begin(tick)

    def _on_run(self, tick: Tick) -> None:
        if tick is not self._tick:
            return  # the run was cut
        self._in_run = False
        self._advance()
        self._kv.grow(self._run_steps - 1 - self._grown)
        self._kv.tokens += self._kv.growing  # the budget is kept to when those who are done have left
        finishes, done = self._finishes, []
        while finishes and finishes[0][0] <= self._step:
            job = heappop(finishes)[2]
            if job.row >= 0:
                done.append(job)
        if len(done) > 1:
            done.sort(key=lambda job: -job.row)
        for job in done:
            call = job.call
            assert call is not None
            job.held.logits = call.ends
            self._leave(job)
            self._answer(call)
        self._kv.settle()
        self._after()

    def _advance(self) -> None:
        steps, totals, rows = self._run_steps, self._totals, len(self._rows)
        self._step += steps
        totals.steps += steps
        totals.decode_steps += steps
        totals.decode_rows += steps * rows
        totals.busy_s += self._run_s
        kept, longest = self._offsets + rows * self._step, self._longest + self._step
        if not self._runs.inside(rows, longest):
            totals.outside_s += self._run_s
        if rows > totals.most_rows:
            totals.most_rows = rows
        if kept > totals.most_kept:
            totals.most_kept = kept
        if longest > totals.longest_kept:
            totals.longest_kept = longest

    def _join(self, job: _Job, left: int) -> None:
        offset = job.offset = job.held.tokens - self._step
        self._kv.join(job.held)
        if not self._rows or offset > self._longest:
            self._longest = offset
        self._offsets += offset
        job.row = len(self._rows)
        self._rows.append(job)
        self._joins += 1
        heappush(self._finishes, (self._step + left, self._joins, job))

    def _leave(self, job: _Job) -> None:
        """Out of the batch; the last row takes its place."""
        last = self._rows.pop()
        if last is not job:
            last.row = job.row
            self._rows[job.row] = last
        job.row = -1
        self._offsets -= job.offset
        if job.offset == self._longest and self._rows:
            self._longest = max([row.offset for row in self._rows])
        self._kv.leave(job.held, job.offset + self._step)
