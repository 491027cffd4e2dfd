"""What a simulated engine's scheduling decides, apart from when Python runs: the engine asks, between events."""

from __future__ import annotations

from typing import Protocol

from atts_runtime.control.events import ChainId
from atts_sim.calls import EngineCall, Totals
from atts_sim.cost import StepShape


class Discipline(Protocol):
    """Who computes what in which step, and who holds how much KV. It owns the waiting calls and shares the decode batch
    with its engine, which takes the time.

    A step begins with `schedule`; `taken_s` is how long it takes to let those calls in. If it yields a pass, `passed`
    follows at its end. Then, where `decodes_after_pass`, or if there was no pass, come as many decode steps as `steps`
    says (none: it has settled the step's end itself), and `decoded` or `cut` at their end.
    """

    decodes_after_pass: bool
    taken_s: float

    def add(self, call: EngineCall) -> None:
        """A call has come; heard at the begin of a step."""

    def queued(self, call: EngineCall) -> bool:
        """A call comes during a run of decode steps: take it, if it could not be let in before the run's end anyway."""

    def drop(self, call: EngineCall) -> None:
        """Nobody waits for the call any more."""

    def release(self, chain: ChainId) -> None:
        """The chain is over."""

    def idle(self, chain: ChainId) -> bool | None:
        """Whether what it holds of a chain is idle; None: a release of the chain would change nothing."""

    def release_in_run(self, chain: ChainId, steps: int) -> None:
        """`release`, of idle KV, after so many steps of the run."""

    def schedule(self) -> StepShape | None:
        """Let calls in; the shape of the step's pass, if there is something to feed."""

    def passed(self) -> None:
        """The pass is over."""

    def steps(self) -> int:
        """Decode steps that may pass with nothing to decide, unless calls come; 0 where nothing decodes."""

    def decoded(self, steps: int) -> None:
        """The run is over, and the batch has advanced by so many steps; some rows may be done."""

    def cut(self, steps: int) -> None:
        """So are these steps of the run, and no row is done."""

    @property
    def waits(self) -> bool:
        """Whether there is something to decide at the begin of the next step."""

    def state(self, totals: Totals) -> None:
        """Fill in the totals of KV."""
