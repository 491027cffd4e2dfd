"""A batching engine under a simulated clock, fast.

Who is let in and what a step feeds is its discipline's to say (`EngineSpec.paged`): that of the embedded engine
(`alternating`), or of vLLM's (`mixed`). Both are stated plainly, one event a pass, by `reference` and
`mixed_reference`. What differs here is when Python runs. Between two changes of the decode batch nothing is decided, so
all those steps are one event whose time is a closed form; a message that comes in between cuts the run at the end of
the step in which it came, which is when the real engine would look at it.
"""

from __future__ import annotations

from typing import Literal

from atts_runtime.control.events import ChainId
from atts_sim.alternating import Alternating
from atts_sim.batch import DecodeBatch
from atts_sim.calls import EngineCall, EngineSpec, Totals
from atts_sim.clock import Clock, begin_priority, end_priority
from atts_sim.cost import DecodeRuns, StepCost, StepShape
from atts_sim.device import Device
from atts_sim.discipline import Discipline
from atts_sim.mixed import Mixed

_Message = tuple[Literal["drop"], EngineCall] | tuple[Literal["release"], ChainId]


class BatchingEngine:
    """A `SimEngine`. Between events it is idle, in a run of decode steps that a message may cut, or else bound: in a
    pass, about to begin a step, or waiting for its turn on a shared device. `runs`: of `cost`, shared between engines
    (None: its own)."""

    def __init__(
        self,
        clock: Clock,
        spec: EngineSpec,
        cost: StepCost,
        device: Device | None = None,
        runs: DecodeRuns | None = None,
    ) -> None:
        if spec.wake_s or (spec.per_call is not None and spec.per_call.end_s):
            raise ValueError(
                "what waking and ends of calls cost is for engines that step: take reference.ReferenceEngine"
            )
        self.spec, self.device, self._totals = spec, device, Totals()
        self._clock, self._cost, self._runs = clock, cost, runs or DecodeRuns(cost)
        self._batch = DecodeBatch(cost.row_stops)
        make = Alternating if spec.paged is None else Mixed
        self._line: Discipline = make(clock, spec, self._batch, self._answer)
        self._inbox: list[EngineCall | _Message] = []
        self._idle, self._in_run = True, False
        self._run_number = -1  # of the call at its end
        self._run_start_s = self._run_s = 0.0
        self._run_steps = 0
        self._run = (0, 0, 0)  # rows, tokens that they read together, and those of the longest, at its start
        self._more_s = 0.0  # of each of its steps, for its groups of rows
        self._may_undo = False
        self._rank = clock.rank() if device is None else device.rank
        self._end, self._begin = end_priority(self._rank), begin_priority(self._rank)
        if device is not None:
            device.join(self)

    @property
    def totals(self) -> Totals:
        """As of the last step that an event has completed."""
        self._line.state(self._totals)
        return self._totals

    # -- messages

    def submit(self, call: EngineCall) -> None:
        if self._in_run and not self._inbox and self._line.queued(call):
            return
        self._inbox.append(call)
        self._post()

    def cancel(self, call: EngineCall) -> None:
        self._inbox.append(("drop", call))
        self._post()

    def release(self, chain: ChainId) -> None:
        unused = self._line.idle(chain)
        if unused is None and not self._inbox:
            return
        if self._idle:
            self._line.release(chain)
            return
        if self._in_run and unused:
            # It changes no batch, so the run goes on: the discipline alone is told at which step of it.
            steps, _ = self._boundary()
            if steps < self._run_steps:
                self._line.release_in_run(chain, steps)
                return
        self._inbox.append(("release", chain))
        self._post()

    def _post(self) -> None:
        if self._in_run:
            self._cut()
        elif self._idle:
            self._idle = False
            if self.device is None:
                self._clock.call(0.0, self._begin, self._on_begin)
            else:
                self.device.ask(self)

    def _take_messages(self) -> None:
        line, inbox = self._line, self._inbox
        for message in inbox:
            if not isinstance(message, tuple):
                line.add(message)
            elif message[0] == "drop":
                line.drop(message[1])
            else:
                line.release(message[1])
        inbox.clear()

    def _answer(self, call: EngineCall) -> None:
        call.t_end_s = self._clock.now
        call.on_done(call)

    # -- steps

    def begin(self) -> None:
        """Begin a step; the clock has been told."""
        if self._inbox:
            self._take_messages()
        shape = self._line.schedule()
        taken_s = self._line.taken_s
        if taken_s:
            self._totals.busy_s += taken_s
            self._clock.call(taken_s, self._end, lambda number: self._go_on(shape))
        else:
            self._go_on(shape)

    def _go_on(self, shape: StepShape | None) -> None:
        """The step's calls are let in."""
        if shape is None:
            self._decode()
        else:
            self._start_pass(shape)

    def give_way(self) -> None:
        if self._in_run:
            self._cut()

    def _on_begin(self, number: int) -> None:
        self._clock.begins(self._rank)
        self.begin()

    def _after(self) -> None:
        """A step has ended: go on with the next."""
        line = self._line
        waits = bool(self._inbox) or line.waits
        if self.device is not None:
            self._idle = not (waits or self._batch.size)
            self.device.ended(self, more=not self._idle)
        elif waits:
            self._clock.last(self._begin, self._on_begin)
        elif self._batch.size:
            self._start_run(line.steps())
            self._may_undo = True
        else:
            self._idle = True

    # -- passes

    def _start_pass(self, shape: StepShape) -> None:
        seconds, inside = self._cost.cost("append", shape)
        totals = self._totals
        totals.steps += 1
        totals.busy_s += seconds
        totals.append_s += seconds
        if not inside:
            totals.outside_s += seconds
        self._clock.call(seconds, self._end, self._on_passed)

    def _on_passed(self, number: int) -> None:
        self._line.passed()
        if self._line.decodes_after_pass:
            self._decode()
        else:
            self._after()

    # -- runs of decode steps

    def _decode(self) -> None:
        steps = self._line.steps()
        if not steps:
            self._after()
        elif self._inbox or (self.device is not None and self.device.wanted):
            self._start_run(1)
        else:
            self._start_run(steps)

    def _start_run(self, steps: int) -> None:
        self._run = run = self._batch.read()
        self._more_s = more_s = self._cost.group_s * self._batch.more_groups
        self._run_s = self._runs.seconds(*run, steps, more_s)
        self._run_steps, self._run_start_s = steps, self._clock.now
        self._in_run, self._may_undo = True, False
        self._run_number = self._clock.call(self._run_s, self._end, self._on_run)

    def _boundary(self) -> tuple[int, float]:
        """At how many steps of the run, and how long after its start, the engine would look at what comes now."""
        has_begun = self._clock.has_begun(self._rank)
        elapsed = self._clock.now - self._run_start_s
        if elapsed == 0.0 and self._may_undo and not has_begun:
            return 0, 0.0
        if self._run_steps == 1:
            return 1, self._run_s
        steps, seconds = self._runs.until(*self._run, self._run_steps, elapsed, self._more_s)
        if has_begun and seconds <= elapsed:
            steps += 1
            seconds = self._runs.seconds(*self._run, steps, self._more_s)
        return steps, seconds

    def _cut(self) -> None:
        """A message came: end the run with the step that is on its way."""
        self._in_run = False
        steps, seconds = self._boundary()
        if steps < self._run_steps:
            self._run_steps, self._run_s = steps, seconds
            delay_s = max(0.0, self._run_start_s + seconds - self._clock.now)
            self._run_number = self._clock.call(delay_s, self._begin, self._on_cut)

    def _on_cut(self, number: int) -> None:
        if self._run_steps:
            self._advance()
            self._line.cut(self._run_steps)
        if self.device is None:
            self._on_begin(number)
        else:
            self.device.pass_on(self)

    def _on_run(self, number: int) -> None:
        if number != self._run_number:
            return  # the run was cut
        self._in_run = False
        self._advance()
        self._line.decoded(self._run_steps)
        self._after()

    def _advance(self) -> None:
        steps, seconds, totals, (rows, kept, longest) = self._run_steps, self._run_s, self._totals, self._run
        self._batch.step += steps
        totals.steps += steps
        totals.decode_steps += steps
        totals.decode_rows += steps * rows
        totals.busy_s += seconds
        totals.outside_s += self._runs.outside_s(rows, kept, longest, steps, seconds, self._more_s)
