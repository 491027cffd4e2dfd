"""vLLM in this process: `AsyncLLM`, whose engine core and workers are processes of their own.

Chains keep their KV in vLLM's prefix cache: a call sends all ids, and vLLM computes those behind the last full block that
it still holds. What a chain sent before tells how much of that had been computed and was lost.
"""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from atts_runtime.control.events import ChainId
from atts_runtime.engines import vllm_scoring as scoring
from atts_runtime.engines.base import (
    EngineError,
    EngineStats,
    GenerateCall,
    Generated,
    Piece,
    Placement,
    ScoreCall,
    Scored,
    Usage,
)
from atts_runtime.engines.chains import common_prefix
from atts_runtime.engines.request import Request, request
from atts_runtime.engines.steps import Steps
from atts_runtime.engines.vllm_launch import Launch, launch, require
from atts_runtime.engines.vllm_log import VllmLog
from atts_runtime.engines.vllm_model import Served
from atts_runtime.profiler.counts import Rates
from atts_runtime.profiler.modelspec import ModelSpec

_SETTLE_S = 1.0  # how long the report of the last step may take


@dataclass(slots=True)
class _Chain:
    """`fed`: ids whose KV was computed for the chain last. `own`: where this engine wrote a piece, its log-likelihood."""

    fed: list[int] = field(default_factory=list)
    own: dict[tuple[int, int, bool], tuple[list[int], float]] = field(default_factory=dict)


class VllmEngine:
    """One model under `AsyncLLM`.

    Args:
        wanted: what vLLM is started with.
        scores_own: the model also scores what it writes: keep the likelihoods of its tokens as it draws them, since
            the prefix cache would hold the KV of the segment, and not the logits that a score needs.
    """

    def __init__(self, wanted: Launch, *, scores_own: bool = False) -> None:
        self.name = wanted.name
        self._wanted, self._scores_own = wanted, scores_own
        self._log = VllmLog()
        self._llm: Any = None
        self._served: Served | None = None
        self._runner: scoring.Runner = "v1"
        self._chains: dict[ChainId, _Chain] = {}
        self._prompts: set[tuple[int, ...]] = set()
        self._open: set[str] = set()
        self._requests = 0
        self._closing = False

    async def start(self) -> None:
        """Start vLLM, which takes tens of seconds; raises InputError if it cannot serve the model."""
        require()
        self._llm = await asyncio.to_thread(launch, self._wanted, self._log)
        served = self._served = await asyncio.to_thread(Served.of, self._llm, self._wanted)
        self._runner = "v2" if getattr(self._llm.vllm_config, "use_v2_model_runner", False) else "v1"
        self._log.rates = None if served.spec is None else Rates(served.spec)
        self._log.kv_capacity_tokens = served.kv_capacity_tokens
        self._log.reset(counted=True)

    @property
    def spec(self) -> ModelSpec | None:
        return None if self._served is None else self._served.spec

    @property
    def uncounted(self) -> str | None:
        return None if self._served is None else self._served.uncounted

    async def generate(self, call: GenerateCall) -> Generated:
        usage, served = Usage(time.perf_counter()), self._live
        ids = request(call, served.vocabulary, served.max_context_tokens)
        limit, vocab = served.max_context_tokens, served.vocabulary
        if len(ids.full) >= limit:
            usage.t_start_s = usage.t_end_s = time.perf_counter()
            return Generated(Piece("", (), vocab.vocab), True, usage)
        output = await self._run(ids.full, self._sampling(call, served))
        written = output.outputs[0]
        drawn = list(written.token_ids)
        if call.stop is not None:  # several tokens may have come at once
            while len(drawn) > 1 and call.stop in vocab.decode(drawn[:-1]):
                drawn.pop()
        eos = bool(drawn) and drawn[-1] in vocab.eos_ids
        kept = drawn[:-1] if eos else drawn
        chain = self._chain(call.chain)
        await self._spend(usage, ids, output, len(drawn), chain)
        chain.fed = ids.full + drawn[:-1]
        if self._scores_own and drawn and not (eos and len(vocab.eos_ids) > 1):
            nll = [-written.logprobs[i][token].logprob for i, token in enumerate(drawn)]
            chain.own[len(ids.full), len(kept), eos] = (ids.full + kept, math.fsum(nll) / len(nll))
        piece = Piece(vocab.decode(kept), tuple(kept), vocab.vocab, eos)
        return Generated(piece, len(ids.full) + len(drawn) >= limit or not drawn, usage)

    async def score(self, call: ScoreCall) -> Scored:
        usage, served = Usage(time.perf_counter()), self._live
        ids = request(call, served.vocabulary, served.max_context_tokens)
        chain = self._chain(call.chain)
        usage.tokens_new = len(ids.segment) + ids.eos
        known = chain.own.get((ids.context, len(ids.segment), ids.eos))
        if known is not None and known[0] == ids.full:
            usage.t_start_s = usage.t_end_s = time.perf_counter()
            usage.tokens_cached = ids.context
            return Scored(known[1], usage)
        plan = scoring.plan(ids, served.vocabulary.eos_ids, served.max_context_tokens)
        if plan is None:
            raise EngineError(f"an end of text after {len(ids.full)} tokens exceeds the model's context")
        nll = None
        for cached in (True, False):
            output = await self._run(plan.fed, scoring.params(plan, self._runner, cached=cached))
            nll = scoring.read(plan, self._runner, output)
            await self._spend(usage, ids, output, 1, chain)
            chain.fed = ids.full
            if nll is not None:
                break
        if nll is None:
            raise EngineError("vLLM returned no log-probabilities of the prompt", retryable=True)
        ell = math.fsum(nll) / len(nll) if all(map(math.isfinite, nll)) else math.nan
        if math.isnan(ell):
            raise EngineError(f"the model scored the segment {nll}"[:200])
        usage.tokens_new = len(nll)
        return Scored(ell, usage)

    def _sampling(self, call: GenerateCall, served: Served) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        return SamplingParams(
            max_tokens=call.max_tokens,
            temperature=call.temperature,
            seed=int(np.random.SeedSequence(call.seed).generate_state(1, np.uint64)[0] >> np.uint64(1)),
            stop=None if call.stop is None else [call.stop],
            include_stop_str_in_output=True,
            detokenize=call.stop is not None,
            stop_token_ids=sorted(served.vocabulary.eos_ids),
            logprobs=0 if self._scores_own else None,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    async def _run(self, ids: list[int], params: Any) -> Any:
        """One request to its end; cancelling the task aborts it."""
        from vllm import TokensPrompt
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        self._requests += 1
        name, output = f"{self.name}-{self._requests}", None
        self._open.add(name)
        self._log.opened(len(ids))
        try:
            async for output in self._llm.generate(TokensPrompt(prompt_token_ids=ids), params, name):
                pass
        except EngineDeadError as error:
            raise EngineError(f"engine {self.name!r} died; vLLM's log: {self._llm.atts_log}") from error
        except EngineGenerateError as error:
            raise EngineError(f"engine {self.name!r} failed: {error.__cause__ or error}", retryable=True) from error
        except ValueError as error:
            raise EngineError(f"engine {self.name!r} cannot take the call: {error}") from error
        finally:
            self._open.discard(name)
            self._log.closed(len(ids))
        if self._closing:
            raise EngineError(f"engine {self.name!r} was closed")
        if output is None or output.outputs[0].finish_reason not in ("stop", "length"):
            raise EngineError(f"engine {self.name!r} broke a call off", retryable=True)
        return output

    async def _spend(self, usage: Usage, ids: Request, output: Any, drawn: int, chain: _Chain) -> None:
        """Write down what a request cost, on top of what the call had cost before."""
        times, cached = output.metrics, output.num_cached_tokens or 0
        if not usage.t_start_s:
            usage.t_start_s = max(usage.t_queued_s, times.scheduled_ts)
        for _ in range(8):  # the answer may come a moment before the report of the step
            if self._log.seen(times.last_token_ts):
                break
            await asyncio.sleep(0)
        seen = max(common_prefix(chain.fed, ids.full), len(ids.prompt) if ids.prompt in self._prompts else 0)
        self._prompts.add(ids.prompt)
        if len(ids.segment) == 0 or not usage.tokens_new:
            usage.tokens_new = usage.tokens_new or drawn
        usage.tokens_cached = min(cached, ids.context)
        usage.tokens_prefilled += max(0, ids.context - cached)
        usage.tokens_recomputed += max(0, min(seen, ids.context) - cached)
        self._log.charge(
            usage, ids, cached=cached, drawn=drawn, first_s=times.first_token_ts, last_s=times.last_token_ts
        )
        usage.t_end_s = time.perf_counter()

    def _chain(self, chain: ChainId) -> _Chain:
        return self._chains.setdefault(chain, _Chain())

    def release(self, chain: ChainId) -> None:
        self._chains.pop(chain, None)

    def stats(self) -> EngineStats:
        return self._log.stats()

    def steps(self) -> Steps | None:
        return self._log.steps

    async def settled(self) -> None:
        deadline_s = time.perf_counter() + _SETTLE_S
        while not self._log.at_rest and time.perf_counter() < deadline_s:
            await asyncio.sleep(0.005)

    async def reset(self, *, counted: bool = True) -> None:
        await self.settled()
        self._chains.clear()
        self._prompts.clear()
        await self._llm.reset_prefix_cache()
        self._log.reset(counted=counted)

    def prompt_tokens(self, prompt: str) -> int:
        return len(self._live.vocabulary.encode_prompt(prompt))

    @property
    def placement(self) -> Placement | None:
        """Where the model runs; None where it is spread over several devices."""
        return self._live.placement

    @property
    def max_context_tokens(self) -> int:
        return self._live.max_context_tokens

    async def close(self) -> None:
        llm, self._closing = self._llm, True
        if llm is None:
            return
        await llm.abort(list(self._open))
        await asyncio.sleep(0)
        self._llm = None
        await asyncio.to_thread(llm.shutdown)
        llm.atts_log.unlink(missing_ok=True)

    @property
    def _live(self) -> Served:
        if self._served is None or self._llm is None:
            raise EngineError(f"engine {self.name!r} is {'closed' if self._closing else 'not started'}")
        return self._served
