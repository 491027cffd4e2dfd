"""What a driver asks of an engine, and what it gets back. No torch here.

A chain's text is a prompt and a list of pieces, each written by some model. Draft and target may differ in
tokenizer, so a piece carries its text and the ids of the vocabulary that wrote it; an engine with another
vocabulary encodes the text once, piece by piece, which keeps every chain's ids append-only and its KV cache
valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Literal, Protocol, get_args

from atts_runtime.control.events import ChainId
from atts_runtime.engines.steps import Steps
from atts_runtime.profiler.modelspec import ModelSpec


class EngineError(RuntimeError):
    """A call failed in an engine. `retryable` says whether the same call may succeed when it is made again; `tries`:
    how often the engine itself made it."""

    def __init__(self, message: str, *, retryable: bool = False, tries: int = 1) -> None:
        super().__init__(message)
        self.retryable, self.tries = retryable, tries


class OutageError(RuntimeError):
    """Nothing serves a model any more: the run ends, to be resumed; no chain is at fault."""


@dataclass(slots=True)
class Piece:
    """A run of text by one model: its ids in that model's vocabulary.

    `eos`: the model then drew its end-of-text token, which is not among the ids, so that another model can go on.
    """

    text: str
    ids: tuple[int, ...]
    vocab: str
    eos: bool = False
    _encoded: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    @classmethod
    def joined(cls, pieces: Sequence[Piece]) -> Piece:
        """All pieces as one. Where different models wrote them, every engine encodes its text anew."""
        text, eos = "".join(piece.text for piece in pieces), pieces[-1].eos
        vocabs = {piece.vocab for piece in pieces}
        if len(vocabs) > 1:
            return cls(text, (), "", eos)
        return cls(text, tuple(chain.from_iterable(piece.ids for piece in pieces)), vocabs.pop(), eos)

    def ids_in(self, vocab: str, encode: Encode) -> tuple[int, ...]:
        """Ids in the vocabulary named `vocab`, encoded by `encode` where another model wrote the piece."""
        if vocab == self.vocab:
            return self.ids
        if vocab not in self._encoded:
            self._encoded[vocab] = tuple(encode(self.text))
        return self._encoded[vocab]


class Encode(Protocol):
    """Text to ids, without special tokens."""

    def __call__(self, text: str, /) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class GenerateCall:
    """Continue prompt + pieces by at most `max_tokens`, up to and including `stop` or the end of text.

    Sampling draws from a stream that `seed` alone fixes, so that a chain's text never depends on its neighbours.
    """

    chain: ChainId
    prompt: str
    pieces: tuple[Piece, ...]
    max_tokens: int
    temperature: float
    stop: str | None
    seed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ScoreCall:
    """Score the last piece given prompt and pieces before it; its end of text counts as a token if it has one."""

    chain: ChainId
    prompt: str
    pieces: tuple[Piece, ...]


Phase = Literal["prefill", "score", "decode"]
PHASES: tuple[Phase, ...] = get_args(Phase)
"""What an engine does for a call: feed its context, feed a segment to be scored, draw tokens one by one."""


@dataclass(slots=True)
class Demand:
    """FLOPs and bytes that tokens needed, by `profiler.counts`; a step's reading of the weights is shared among them.

    Attention is counted over the full rectangle of new tokens and cached ones, as dense kernels compute it; padding
    is not counted. `seconds` is their share of the steps' time.
    """

    tokens: int = 0
    flops: int = 0
    bytes: float = 0.0
    seconds: float = 0.0

    def add(self, tokens: int, flops: int, bytes_: float) -> None:
        """More of the same."""
        self.tokens += tokens
        self.flops += flops
        self.bytes += bytes_


@dataclass(slots=True)
class Usage:
    """What a call cost. Times in seconds of `time.perf_counter`; tokens counted in the engine's own vocabulary.

    tokens_new: generated, or scored; tokens_cached: context whose KV was still held; tokens_prefilled: context
    computed for this call, of which `tokens_recomputed` had been computed before and were lost. Where a server does not
    say what it held, `tokens_cached` and `tokens_recomputed` are None and `tokens_prefilled` is the whole context.
    `prefill` and `own` are what the context and the call's own tokens demanded, and stay None where the engine does not
    count. A prompt that several calls share is charged to the one that asked first; it is in its `tokens_cached`.
    tries: requests that it took, more than one where a server did not answer.
    """

    t_queued_s: float
    t_start_s: float = 0.0
    t_end_s: float = 0.0
    tokens_new: int = 0
    tokens_cached: int | None = 0
    tokens_prefilled: int = 0
    tokens_recomputed: int | None = 0
    tries: int = 1
    prefill: Demand | None = None
    own: Demand | None = None


@dataclass(frozen=True, slots=True)
class Generated:
    """A generated piece and its cost. `full`: the context has no room for more."""

    piece: Piece
    full: bool
    usage: Usage


@dataclass(frozen=True, slots=True)
class Scored:
    """Mean negative log-likelihood of the scored tokens, nats per token, and its cost."""

    ell: float
    usage: Usage


@dataclass(slots=True)
class Outage:
    """A time in which a server was down, by `time.perf_counter`; `t_end_s` None: it still is."""

    endpoint: str
    cause: str
    t_start_s: float
    t_end_s: float | None = None


@dataclass(slots=True)
class EngineStats:
    """Running totals of one engine. `steps` counts forward passes, `decode_rows` the rows of decode steps.

    busy_s: at work, in steps and in taking calls in; idle_s: waiting for work, by its own clock (None: not measured).
    prefilled_tokens: ids fed by appends: prompts, other models' text, scored segments.
    measured: false where steps, tokens and KV are a server's that does not tell them: they are 0 and mean nothing.
    kv_tokens / kv_peak_tokens: KV held now and at most, of kv_capacity_tokens; evictions: chains whose KV was dropped
    for room.
    phases, flops_executed: what the calls' tokens demanded, and FLOPs as executed (with the padding of batches, or as
    the engine itself counts); None: not counted.

    Of a server alone: running / waiting requests now; preemptions; prompt tokens looked for in its prefix cache, and
    found; tokens guessed by speculative decoding, and accepted; of one elsewhere also its endpoints that are up,
    requests made again, answers that asked to come later, outages. None where there is no such thing or it is not said.
    """

    busy_s: float = 0.0
    idle_s: float | None = None
    steps: int = 0
    decode_steps: int = 0
    decode_rows: int = 0
    prefilled_tokens: int = 0
    evictions: int | None = 0
    kv_tokens: int = 0
    kv_peak_tokens: int = 0
    measured: bool = True
    phases: dict[Phase, Demand] | None = None
    flops_executed: int | None = None
    kv_capacity_tokens: int | None = None
    running: int | None = None
    waiting: int | None = None
    preemptions: int | None = None
    prefix_queried_tokens: int | None = None
    prefix_hit_tokens: int | None = None
    speculated_tokens: int | None = None
    accepted_tokens: int | None = None
    endpoints_up: int | None = None
    retried: int | None = None
    throttled: int | None = None
    outages: list[Outage] | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an engine computes: device (cpu, cuda) and its index, arithmetic (float32), CPU threads (None: torch's)."""

    device: str
    index: int | None
    dtype: str
    threads: int | None


class Engine(Protocol):
    """One model, served. Calls may overlap freely; each is answered when it is done, in any order.

    `spec` are the model's dimensions, None until `start` and where they are not known; `uncounted` then says why.
    """

    name: str
    spec: ModelSpec | None
    uncounted: str | None

    async def start(self) -> None:
        """Load weights and be ready; raises InputError if the model cannot serve."""

    async def generate(self, call: GenerateCall) -> Generated:
        """Raises EngineError; cancelling the task drops the call."""

    async def score(self, call: ScoreCall) -> Scored:
        """Raises EngineError; cancelling the task drops the call."""

    def release(self, chain: ChainId) -> None:
        """The chain is over: its KV may go."""

    def stats(self) -> EngineStats:
        """A copy of the totals since the last `reset`."""

    def steps(self) -> Steps | None:
        """Every step since the last `reset`; None where the engine does not count."""

    async def settled(self) -> None:
        """Until the step is over that answered the last call: only then do the totals hold it."""

    async def reset(self, *, counted: bool = True) -> None:
        """Forget all chains and totals, as if just started. `counted`: count what steps need from here on."""

    def prompt_tokens(self, prompt: str) -> int:
        """Length of a prompt in this engine's ids."""

    @property
    def placement(self) -> Placement | None:
        """Where it computes; None where it does not say."""

    @property
    def max_context_tokens(self) -> int | None:
        """Longest context that the model takes, None if unknown."""

    async def close(self) -> None:
        """Give everything back; calls in flight are dropped."""
