"""What is asked of a simulated engine, and what an engine is: calls in tokens, limits, totals."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple, Protocol

from atts_runtime.control.events import ChainId
from atts_runtime.profiler.engineprofile import EngineProfile
from atts_runtime.profiler.stepfit import CallCosts
from atts_runtime.records import Kind
from atts_sim.device import Device


@dataclass(frozen=True, slots=True)
class Paged:
    """The scheduling of vLLM's engine (V1), in place of the embedded engine's; see `atts_sim.mixed`.

    block_tokens: KV comes in blocks of so many (``block_size``); blocks: how many there are (``num_gpu_blocks``, as
    `atts_sim.capacity.kv_blocks` derives them; None: no bound); chunked: a prefill may be cut to the step's budget of
    tokens, else it goes whole; lengths: most tokens of a generating call, by kind, where what it writes may end sooner
    at a stop string: vLLM's front end sees that when the next pass has begun, in which the call still has its row
    (None: nothing ends so). Only engines that go step by step have this row.
    """

    block_tokens: int = 16
    blocks: int | None = None
    chunked: bool = True
    lengths: Mapping[Kind, int] | None = None

    def __post_init__(self) -> None:
        if self.block_tokens < 1 or (self.blocks is not None and self.blocks < 1):
            raise ValueError(f"block_tokens and blocks must be at least 1, got {self}")


class PerCall(NamedTuple):
    """What calls cost the embedded engine besides their passes.

    generate, score: by kind, when they are let in; end_s: of a generating one that is done.
    """

    generate: CallCosts
    score: CallCosts
    end_s: float = 0.0

    def let_in(self, calls: Iterable[EngineCall]) -> float:
        """Seconds that calls take which are let in together. A generating one will hold all of its tokens when it
        joins."""
        total = 0.0
        for call in calls:
            if call.kind == "score":
                total += self.score.seconds(call.tokens_cached)
            else:
                total += self.generate.seconds(call.full_tokens)
        return total

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return self._asdict() | {"generate": asdict(self.generate), "score": asdict(self.score)}


def per_call_of(profile: EngineProfile) -> PerCall | None:
    """As the profile has it; None: it does not say."""
    generate, score = profile.calls("generate"), profile.calls("score")
    return None if generate is None or score is None else PerCall(generate, score)


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Limits of one engine, as the embedded engine has them, and its discipline.

    max_rows: chains that decode together; step_tokens: most tokens of an append pass, padding included;
    kv_budget_tokens: KV kept for idle chains and prompts, None: no bound; slots: calls that a driver lets at the engine
    at a time, later ones wait for their turn (None: four times the rows, as `atts_runtime.driver`); per_call: what a
    call costs when it is let in, before the step that lets it in (None: nothing); wake_s: from the first call that
    comes while it has nothing to do until it begins a step.

    paged: schedule as vLLM does (None: as the embedded engine). Then max_rows is its ``max_num_seqs``, step_tokens its
    ``max_num_batched_tokens``, and the KV is bounded by `Paged.blocks`, not by a budget.
    """

    max_rows: int = 64
    step_tokens: int = 1024
    kv_budget_tokens: int | None = None
    slots: int | None = None
    paged: Paged | None = None
    per_call: PerCall | None = None
    wake_s: float = 0.0

    @property
    def kv_tokens(self) -> int | None:
        """KV tokens that it holds; None: no bound."""
        if self.paged is None:
            return self.kv_budget_tokens
        return None if self.paged.blocks is None else self.paged.blocks * self.paged.block_tokens

    def __post_init__(self) -> None:
        for name in ("max_rows", "step_tokens", "kv_budget_tokens", "slots"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.wake_s < math.inf:
            raise ValueError(f"wake_s must be a time, got {self.wake_s}")
        if self.paged is not None and self.step_tokens < self.max_rows:
            raise ValueError(f"a step of {self.step_tokens} tokens has no room for {self.max_rows} rows; raise it")
        if self.paged is not None and self.kv_budget_tokens is not None:
            raise ValueError("a paged engine's KV is bounded by paged.blocks: leave kv_budget_tokens out")
        if self.paged is not None and self.per_call is not None:
            raise ValueError("costs a call are known of the embedded engine, not of a paged one: leave per_call out")


@dataclass(slots=True, eq=False)
class EngineCall:
    """A request, in tokens of the engine's own vocabulary, and afterwards its cost.

    full_tokens: prompt and text, for a score the segment included; context_tokens: those before the segment to score,
    all of them where the call generates; stable_tokens: how many leading ones the chain had when this engine last saw
    it, so that KV behind them is of a text that was replaced since; shared_tokens: how many a paged engine holds at
    least, as another chain wrote the same; skips_cache: it computes all of them, whatever it holds. new_tokens:
    generated (an end of text, `ends`, included) or scored. `on_done` hears of the answer at its time. Times in seconds;
    None: not yet.

    The last five are the engine's own: the KV that the call works on; and of a call in a `DecodeBatch` its row, the how
    manieth it was to join (-1: it is in none), how many more tokens it keeps than the batch has made steps, and the
    positions that it attends over.
    """

    kind: Kind
    chain: ChainId
    turn: int
    prompt: Hashable
    prompt_tokens: int
    full_tokens: int
    context_tokens: int
    stable_tokens: int
    new_tokens: int
    ends: bool
    on_done: Callable[[EngineCall], None]
    t_queued_s: float = 0.0
    t_start_s: float | None = None
    t_end_s: float | None = None
    tokens_cached: int = 0
    tokens_prefilled: int = 0
    tokens_recomputed: int = 0
    dropped: bool = False
    shared_tokens: int = 0
    skips_cache: bool = False
    held: Any = field(default=None, init=False, repr=False)
    row: int = field(default=0, init=False, repr=False)
    joined: int = field(default=-1, init=False, repr=False)
    offset: int = field(default=0, init=False, repr=False)
    reach: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        score = self.kind == "score"
        if not 1 <= self.prompt_tokens <= self.context_tokens <= self.full_tokens or self.new_tokens < 1:
            raise ValueError(f"no call of an engine: {self}")
        if self.stable_tokens < self.prompt_tokens or (self.full_tokens > self.context_tokens and not score):
            raise ValueError(f"no call of an engine: {self}")


@dataclass(slots=True)
class Totals:
    """What an engine did. `busy_s` is the time of its steps, calls let in included, `append_s` of its append passes;
    `steps` are passes.

    outside_s: time of steps that the step-time model does not vouch for. kv_tokens: held now, by a paged engine in
    blocks that requests use; evictions: chains and prompts whose KV went, of a paged engine its cached blocks;
    preemptions: calls put back because blocks ran out.
    """

    busy_s: float = 0.0
    append_s: float = 0.0
    outside_s: float = 0.0
    steps: int = 0
    decode_steps: int = 0
    decode_rows: int = 0
    prefilled_tokens: int = 0
    evictions: int = 0
    preemptions: int = 0
    kv_tokens: int = 0
    kv_peak_tokens: int = 0


class SimEngine(Protocol):
    """One simulated engine. Calls may overlap freely; each is answered when it is done. `device`: what it shares with
    other engines (None: it has one of its own)."""

    spec: EngineSpec
    totals: Totals
    device: Device | None

    def submit(self, call: EngineCall) -> None:
        """Ask for a call; the engine sees it when its step ends."""

    def cancel(self, call: EngineCall) -> None:
        """Nobody waits for this call any more."""

    def release(self, chain: ChainId) -> None:
        """The chain is over: its KV may go."""
