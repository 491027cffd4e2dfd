"""vLLM in this process: `AsyncLLM`, whose engine core and workers are processes of their own.

Chains keep their KV in vLLM's prefix cache: a call sends all ids, and vLLM computes those behind the last full block
that it still holds. What a chain sent before tells how much of that had been computed and was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from typing import Any

import numpy as np

from atts_runtime.control.events import ChainId
from atts_runtime.engines import vllm_scoring as scoring
from atts_runtime.engines.base import (
    EngineError,
    EngineStats,
    GenerateCall,
    Generated,
    OutageError,
    Piece,
    Placement,
    ScoreCall,
    Scored,
    Usage,
)
from atts_runtime.engines.chains import common_prefix
from atts_runtime.engines.request import Request, drawn_until, request
from atts_runtime.engines.steps import Steps
from atts_runtime.engines.token_scores import END, TokenScores
from atts_runtime.engines.vllm_launch import Launch, launch, require
from atts_runtime.engines.vllm_log import VllmLog
from atts_runtime.engines.vllm_model import Served, vocabulary_of
from atts_runtime.errors import InputError
from atts_runtime.profiler.counts import Rates
from atts_runtime.profiler.modelspec import ModelSpec

_SAMPLE = "37 + 45 - 28 = 54"
_SETTLE_S = 1.0  # how long the report of the last step may take
_SHUTDOWN_S = 15.0  # vLLM then kills its processes


class VllmEngine:
    """One model under `AsyncLLM`.

    Args:
        wanted: what vLLM is started with.
        scores: it is also asked for scores: keep the likelihoods of tokens as it draws them, for the segments of other
            chains that read the same, and for its own.
    """

    def __init__(self, wanted: Launch, *, scores: bool = True) -> None:
        self.name = wanted.name
        self.spec: ModelSpec | None = None
        self.uncounted: str | None = None
        self._wanted, self._keeps = wanted, scores
        self._log = VllmLog()
        self._llm: Any = None
        self._served: Served | None = None
        self._runner: scoring.Runner = "v1"
        self._fed: dict[ChainId, list[int]] = {}  # what was computed for a chain last
        self._scores = TokenScores()
        self._prompts: set[tuple[int, ...]] = set()
        self._open: set[str] = set()
        self._requests = 0
        self._closing = self._died = False

    async def start(self) -> None:
        """Start vLLM, which takes tens of seconds; raises InputError if it cannot serve the model."""
        require()
        vocabulary = await asyncio.to_thread(vocabulary_of, self._wanted.model)
        self._llm = await asyncio.to_thread(launch, self._wanted, self._log)
        served = self._served = Served.of(self._llm, self._wanted, vocabulary)
        self._runner = "v2" if getattr(self._llm.vllm_config, "use_v2_model_runner", False) else "v1"
        self.spec, self.uncounted = served.spec, served.uncounted
        self._log.rates = None if served.spec is None else Rates(served.spec)
        self._log.kv_capacity_tokens = served.kv_capacity_tokens
        try:
            await self._warm_up()
        except OutageError as error:
            raise InputError(
                f"engine {self.name!r} died when it was first asked; vLLM's log: {self._llm.atts_log}"
            ) from error
        await self.reset()

    async def _warm_up(self) -> None:
        """Ask for what a run asks for: vLLM compiles some of it when it is first asked for, which takes seconds."""
        chain, vocab = ChainId(0, 0), self._live.vocabulary
        ids = vocab.encode(_SAMPLE)
        with contextlib.suppress(EngineError, InputError):  # what a run's calls cannot do, they say
            await self.generate(GenerateCall(chain, _SAMPLE, (), 4, 1.0, None, (0,)))
            for part in (ids[:6], ids[6:9]) if self._keeps else ():  # of two lengths: what is compiled may be for one
                await self.score(ScoreCall(chain, _SAMPLE, (Piece(vocab.decode(part), tuple(part), vocab.vocab),)))

    async def generate(self, call: GenerateCall) -> Generated:
        usage, served = self._log.usage(), self._live
        ids = request(call, served.vocabulary, served.max_context_tokens)
        limit, vocab = served.max_context_tokens, served.vocabulary
        if len(ids.full) >= limit:
            usage.t_start_s = usage.t_end_s = time.perf_counter()
            return Generated(Piece("", (), vocab.vocab), True, usage)
        output = await self._run(ids.full, self._sampling(call, served))
        written = output.outputs[0]
        drawn, eos = drawn_until(call.stop, written.token_ids, vocab)
        kept = drawn[:-1] if eos else drawn
        await self._spend(call.chain, usage, ids, output, len(drawn))
        self._fed[call.chain] = ids.full + drawn[:-1]
        if self._keeps:
            self._remember(ids.full, kept, written.logprobs)
        piece = Piece(vocab.decode(kept), tuple(kept), vocab.vocab, eos)
        usage.tokens_new = len(drawn)
        return Generated(piece, len(ids.full) + len(drawn) >= limit or not drawn, usage)

    async def score(self, call: ScoreCall) -> Scored:
        usage, served = self._log.usage(), self._live
        ids = request(call, served.vocabulary, served.max_context_tokens)
        keys = TokenScores.keys([*ids.full, END] if ids.eos else ids.full, ids.context)
        cached, known = True, await self._scores.settled(keys)
        while len(known) < len(keys):
            plan = scoring.plan(ids, len(known), served.vocabulary.eos_ids, served.max_context_tokens)
            if plan is None:
                raise EngineError(f"an end of text after {len(ids.full)} tokens exceeds the model's context")
            unknown = keys[len(known) :]
            with self._scores.asking(unknown):
                guesses = self._wanted.speculates
                asked = scoring.params(plan, self._runner, cached=cached, speculates=guesses)
                output = await self._run(plan.fed, asked)
                nll = scoring.read(plan, self._runner, output)
                if nll is not None:
                    if not all(map(math.isfinite, nll)):
                        raise EngineError(f"the model scored the segment's tokens {nll}"[:200])
                    self._scores.add(unknown, nll)
                    known = self._scores.known(keys)
            await self._spend(call.chain, usage, ids, output, 1)
            if nll is not None:
                continue
            if not cached:
                raise EngineError("vLLM returned no log-probabilities of the prompt", retryable=True)
            await self._scores.answered(unknown[0])  # too much was cached: another chain may have asked for it
            before, known = len(known), await self._scores.settled(keys)
            cached = len(known) > before
        if not usage.t_start_s:  # all was known
            usage.t_start_s, usage.tokens_cached = usage.t_queued_s, ids.context
        self._fed[call.chain] = ids.full
        usage.tokens_new, usage.t_end_s = len(keys), time.perf_counter()
        return Scored(math.fsum(known) / len(known), usage)

    def _remember(self, before: list[int], drawn: list[int], logprobs: Any) -> None:
        """What a piece's tokens were drawn with. An end of text is left out: any of several may have been drawn."""
        nll = [-logprobs[i][token].logprob for i, token in enumerate(drawn)]
        self._scores.add(TokenScores.keys(before + drawn, len(before)), nll)

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
            logprobs=0 if self._keeps else None,
            flat_logprobs=self._keeps,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    async def _run(self, ids: list[int], params: Any) -> Any:
        """One request to its end; cancelling the task aborts it."""
        from vllm.inputs import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        self._requests += 1
        name, output = f"{self.name}-{self._requests}", None
        self._open.add(name)
        self._log.opened(len(ids))
        try:
            async for finished in self._llm.generate(tokens_input(ids), params, name):
                output = finished
        except EngineDeadError:
            if self._closing:
                raise EngineError(f"engine {self.name!r} was closed") from None
            self._died = True
            raise OutageError(
                f"engine {self.name!r} died; vLLM's log: {self._llm.atts_log}; finished chains are kept, "
                "go on with --resume"
            ) from None  # one error is raised in all calls, which would chain them
        except EngineGenerateError as error:
            raise EngineError(f"engine {self.name!r} failed: {error.__cause__ or error}", retryable=True) from error
        except ValueError as error:
            raise EngineError(f"engine {self.name!r} cannot take the call: {error}") from error
        finally:
            self._open.discard(name)
            self._log.closed(len(ids), 0 if output is None else len(output.outputs[0].token_ids))
        if self._closing:
            raise EngineError(f"engine {self.name!r} was closed")
        if output is None or output.outputs[0].finish_reason not in ("stop", "length"):
            raise EngineError(f"engine {self.name!r} broke a call off", retryable=True)
        return output

    async def _spend(self, chain: ChainId, usage: Usage, ids: Request, output: Any, drawn: int) -> None:
        """Write down what a request cost, on top of what the call had cost before."""
        times, cached = output.metrics, output.num_cached_tokens or 0
        if not usage.t_start_s:
            usage.t_start_s = max(usage.t_queued_s, times.scheduled_ts)
        for _ in range(8):  # the answer may come a moment before the report of the step
            if self._log.seen(times.last_token_ts):
                break
            await asyncio.sleep(0)
        seen = common_prefix(self._fed.get(chain, []), ids.full)
        if ids.prompt in self._prompts:
            seen = max(seen, len(ids.prompt))
        self._prompts.add(ids.prompt)
        usage.tokens_cached = min(cached, ids.context)
        usage.tokens_prefilled += max(0, ids.context - cached)
        usage.tokens_recomputed = (usage.tokens_recomputed or 0) + max(0, min(seen, ids.context) - cached)
        self._log.charge(
            usage, ids, cached=cached, drawn=drawn, first_s=times.first_token_ts, last_s=times.last_token_ts
        )
        self._fed[chain] = ids.full
        usage.t_end_s = time.perf_counter()

    def release(self, chain: ChainId) -> None:
        self._fed.pop(chain, None)

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
        self._fed.clear()
        self._scores.clear()
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
        llm, self._llm, self._closing = self._llm, None, True
        if llm is None:
            return
        if not self._died:
            await llm.abort(list(self._open))
        await asyncio.to_thread(llm.shutdown, _SHUTDOWN_S)
        if not self._died:
            llm.atts_log.unlink(missing_ok=True)
        llm.shutdown = lambda timeout=None: None  # it would try again at the interpreter's exit, without its modules

    @property
    def _live(self) -> Served:
        if self._served is None or self._llm is None:
            raise EngineError(f"engine {self.name!r} is {'closed' if self._closing else 'not started'}")
        return self._served
