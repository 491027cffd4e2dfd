"""The simulated driver does what the runtime's driver does: same commands, same order, same verdicts."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

import pytest

from atts_runtime.control import POLICIES, ChainId, Command, Controller, Decided, Event, Finish
from atts_runtime.control.actions import Continue, Fork, Redraft, Resample
from atts_runtime.driver import Driver
from atts_runtime.records import ChainRecord
from atts_runtime.session import roles
from atts_sim.affine import AffineCost
from atts_sim.calls import EngineCall, EngineSpec, Totals
from atts_sim.clock import ARRIVAL, Clock, Tick
from atts_sim.driver import SimDriver
from atts_sim.engine import BatchingEngine
from atts_sim.handling import Handling
from atts_sim.recorded import Recorded, from_records
from atts_sim.simrun import SimRun
from tests.runtime.scripted import ScriptedEngine, drive, settings, task_of

OUTCOMES = {Continue: {"stands", "takeover"}, Resample: {"stands", "takeover"}, Redraft: {"stands", "redraft", "keep"}}
OUTCOMES[Fork] = {"stands", "redraft", "fork"}
TURNS_OF_THE_LOOP = 40  # more than an answer takes to become the next call
COST = AffineCost(overhead_s=0.01, token_s=1e-4, weights_s=0.02, kept_s=1e-6)


class Turnstile:
    """Lets calls of several engines through one at a time, oldest first, each when all that follows has been asked."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._pump: asyncio.Task[None] | None = None

    async def turn(self) -> None:
        self._waiting.append(asyncio.get_running_loop().create_future())
        mine = self._waiting[-1]
        if self._pump is None:
            self._pump = asyncio.create_task(self._let_through())
        await mine

    async def _let_through(self) -> None:
        while self._waiting:
            for _ in range(TURNS_OF_THE_LOOP):
                await asyncio.sleep(0)
            first = self._waiting.popleft()
            if not first.done():  # nobody waits for it where its chain was stopped
                first.set_result(None)
            for _ in range(TURNS_OF_THE_LOOP):
                await asyncio.sleep(0)
        self._pump = None


@dataclass
class InTurn(ScriptedEngine):
    """A scripted engine behind a turnstile."""

    turnstile: Turnstile | None = None

    async def _begin(self, method: str, call: Any) -> Any:
        assert self.turnstile is not None
        await self.turnstile.turn()
        return await super()._begin(method, call)


class OneAtATime:
    """A `SimEngine` that answers a call a second, oldest first; several share a queue."""

    def __init__(self, clock: Clock, queue: deque[EngineCall]) -> None:
        self.spec, self.totals, self.device = EngineSpec(), Totals(), None
        self._clock, self._queue = clock, queue
        self.released: list[ChainId] = []

    def submit(self, call: EngineCall) -> None:
        self._queue.append(call)
        if len(self._queue) == 1:
            Tick(self._clock, 1.0, ARRIVAL, self._answer)

    def _answer(self, tick: Tick) -> None:
        call = self._queue[0]
        call.t_start_s = call.t_end_s = self._clock.now
        if not call.dropped:
            call.on_done(call)
        self._queue.popleft()
        if self._queue:
            Tick(self._clock, 1.0, ARRIVAL, self._answer)

    def cancel(self, call: EngineCall) -> None:
        """What is cancelled is not answered, but its second passes."""
        call.dropped = True

    def release(self, chain: ChainId) -> None:
        self.released.append(chain)


def runtime_commands(policy: str, **changes: Any) -> tuple[list[Command], list[ChainRecord]]:
    """What the runtime's driver issues where calls are answered in the order in which they are made."""
    config = settings(policy, **changes)
    commands: list[Command] = []
    records: list[ChainRecord] = []

    async def run() -> None:
        turnstile = Turnstile()
        engines = {
            "draft": InTurn("draft", wrong=0.2, turnstile=turnstile),
            "target": InTurn("target", careful=True, turnstile=turnstile),
        }
        used = {role: engines[of] for role, of in roles(config).items()}
        driver = Driver(config, task_of(config), used, on_finish=records.append)
        controller = driver.controller

        class Spy(Controller):
            def __init__(self) -> None: ...

            def start(self) -> list[Command]:
                commands.extend(out := controller.start())
                return out

            def awaits(self, call: int) -> bool:
                return controller.awaits(call)

            def handle(self, event: Event) -> list[Command]:
                commands.extend(out := controller.handle(event))
                return out

        driver.controller = Spy()
        await driver.run()

    asyncio.run(run())
    return commands, records


def replay(policy: str, recorded: Recorded, watch: list[Command], **changes: Any) -> SimRun:
    """The simulated driver on a recording, calls answered in the order in which they are made."""
    config, clock = settings(policy, **changes), Clock()
    queue: deque[EngineCall] = deque()
    served = roles(config)
    made = {of: OneAtATime(clock, queue) for of in dict.fromkeys(served.values())}
    engines = {role: made[of] for role, of in served.items()}
    driver = SimDriver(config.recipe(config.knobs), config.limits, recorded, engines, clock, watch=watch.append)
    run = driver.run()
    for engine in made.values():
        assert sorted(engine.released) == sorted(recorded.recorded)
    return run


@pytest.mark.parametrize("takeover", ["continue", "resample"])
@pytest.mark.parametrize("in_flight", [None, 1, 2])
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_both_drivers_issue_the_same_commands_in_the_same_order(
    policy: str, in_flight: int | None, takeover: str
) -> None:
    changes = {"questions_in_flight": in_flight, "takeover": takeover}
    theirs, records = runtime_commands(policy, **changes)
    ours: list[Command] = []
    recipe = POLICIES[policy]
    replaces = recipe.action.takes_over and takeover == "resample"
    replay(policy, from_records(records, replaces=replaces), ours, **changes)
    assert ours == theirs
    assert sum(isinstance(command, Finish) for command in ours) == 12
    outcomes = {command.outcome for command in ours if isinstance(command, Decided)}
    assert outcomes >= OUTCOMES.get(recipe.action, set()) if recipe.scores else outcomes <= {"stands", "takeover"}


PARTS: list[dict[str, Any]] = [
    {"early_stop": "majority"},
    {"early_stop": "majority,beta", "beta_level": 0.6},
    {"vote": "confidence"},
    {"vote": "confidence", "early_stop": "majority"},
    {"token_budget": 900},
]


@pytest.mark.parametrize("parts", PARTS, ids=str)
@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_both_drivers_stop_and_vote_alike(policy: str, parts: dict[str, Any]) -> None:
    if policy == "best-of-n" and "early_stop" in parts:
        parts = parts | {"vote": "majority"}  # there is no majority of its votes
    whole = {name: value for name, value in parts.items() if name == "vote"}
    if whole != parts and (not POLICIES[policy].order_free or policy == "barrier"):
        pytest.skip("whom it takes over depends on who was stopped before, and what then follows is not on record")
    theirs, _ = runtime_commands(policy, **parts)
    records = runtime_commands(policy, **whole)[1]
    ours: list[Command] = []
    replay(policy, from_records(records, replaces=False), ours, **parts)
    assert ours == theirs
    finishes = [command for command in ours if isinstance(command, Finish)]
    assert len(finishes) == 12
    if parts.get("vote") == "confidence":
        assert all(finish.weight is not None for finish in finishes if finish.reason == "answered")
    if "token_budget" in parts:
        assert {finish.detail for finish in finishes} >= {"tokens"}


def test_both_drivers_stop_somebody() -> None:
    """Else the test above says nothing about stopping."""
    stopped = [
        command
        for policy in ("draft-only", "async-marginal", "barrier")
        for command in runtime_commands(policy, early_stop="majority", chains=8)[0]
        if isinstance(command, Finish) and command.reason == "stopped"
    ]
    assert stopped


@pytest.mark.parametrize("policy", sorted(name for name, policy in POLICIES.items() if policy.order_free))
def test_order_free_policies_decide_in_batches_as_they_did_one_at_a_time(policy: str) -> None:
    config = settings(policy)
    records = list(drive(config).records.values())
    recorded = from_records(records, replaces=False)
    clock = Clock()
    engines = {role: BatchingEngine(clock, EngineSpec(max_rows=3), COST) for role in ("draft", "target")}
    run = SimDriver(config.recipe(config.knobs), config.limits, recorded, engines, clock).run()
    verdicts = {(d.chain, d.turn, d.attempt): (d.ell, d.p_value, d.outcome) for d in run.decided}
    assert verdicts == {
        (record.chain, call.turn, call.attempt): (call.ell, call.p_value, call.outcome)
        for record in records
        for call in record.calls
        if call.outcome is not None
    }
    assert {f.chain: (f.reason, f.turns) for f, _ in run.finished} == {r.chain: (r.reason, r.turns) for r in records}


def test_a_driver_that_needs_time_handles_one_answer_after_the_other() -> None:
    recorded = from_records(drive(settings("draft-only")).records.values(), replaces=False)
    walls = []
    for handling_s in (0.0, 0.5):
        config, clock = settings("draft-only"), Clock()
        engines = {"draft": BatchingEngine(clock, EngineSpec(), COST)}
        driver = SimDriver(
            POLICIES["draft-only"](config.knobs), config.limits, recorded, engines, clock,
            handling=Handling.one_at_a_time(handling_s),
        )  # fmt: skip
        run = driver.run()
        walls.append(run.wall_s)
        answers = sorted(request.t_end_s or 0.0 for request in run.requests)
    assert walls[1] >= 0.5 * len(answers)
    assert walls[1] >= answers[-1] + 0.5
    assert walls[0] < 0.5 * len(answers)


def test_answers_that_come_together_are_handled_right_after_one_another() -> None:
    """A latency is not multiplied by the answers that it keeps waiting."""
    recorded = from_records(drive(settings("draft-only", turns=2)).records.values(), replaces=False)
    config, clock = settings("draft-only", turns=2), Clock()
    engines = {"draft": BatchingEngine(clock, EngineSpec(), AffineCost(overhead_s=1.0))}
    driver = SimDriver(
        POLICIES["draft-only"](config.knobs), config.limits, recorded, engines, clock, handling=Handling(0.5, 0.001)
    )
    run = driver.run()
    by_chain: dict[object, list[float]] = {}
    for request in run.requests:
        by_chain.setdefault(request.chain, []).append(request.t_queued_s)
        assert request.t_end_s is not None
    answers = {request.chain: request.t_end_s for request in run.requests if request.turn == 0}
    together = [chain for chain, end in answers.items() if end == min(answers.values()) and len(by_chain[chain]) > 1]
    assert len(together) > 1
    waits = sorted(by_chain[chain][1] - (answers[chain] or 0.0) for chain in together)
    assert waits == pytest.approx([0.5 + 0.001 * at for at in range(len(waits))], abs=1e-9)
