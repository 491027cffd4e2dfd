"""Servers of a model elsewhere: vLLM, SGLang, or others of OpenAI's form, at one address or several.

A chain's KV is in its server's prefix cache: a call sends all ids, and the server computes those that it does not hold.
Ids are ours throughout: templates and tokenizers of servers would rewrite what a chain has said.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import secrets
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

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
from atts_runtime.engines.http_channel import Channel
from atts_runtime.engines.http_dialect import Ask, Dialect, Figures, Rows, reader
from atts_runtime.engines.http_errors import Unanswered
from atts_runtime.engines.http_metrics import ServerLog
from atts_runtime.engines.http_pool import CHECK_S, Answered, Pool
from atts_runtime.engines.http_server import Server, Servers, inspect, together
from atts_runtime.engines.request import Request, drawn_until, request
from atts_runtime.engines.steps import Steps
from atts_runtime.engines.token_scores import END, TokenScores
from atts_runtime.engines.vllm_model import vocabulary_of
from atts_runtime.engines.vocabulary import Vocabulary
from atts_runtime.profiler.modelspec import ModelSpec

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)
_REUSE = "--enable-scale-out --enable-prompt-tokens-details"
_SETTLE_S = 2.0  # how long the last request may take to leave a server's books
_RESTARTED_S = 60.0  # for the questions to a server that came back: its first answers may be slow


class HttpEngine:
    """One model, behind the endpoints of a `Pool`.

    One that is asked for scores keeps the likelihoods of the tokens that it draws, for segments that read the same.
    """

    def __init__(self, servers: Servers) -> None:
        self.name = servers.wanted.role
        self.spec: ModelSpec | None = None
        self.uncounted: str | None = "a server elsewhere does not show its steps"
        self._servers, self._keeps = servers, servers.wanted.scores
        self._log = ServerLog()
        self._scores = TokenScores()
        self._fed: dict[ChainId, list[int]] = {}  # what was computed for a chain last
        self._prompts: set[tuple[str, tuple[int, ...]]] = set()  # computed by which endpoint
        self._salt = ""
        self._found: dict[str, Server] = {}
        self._vocabulary: Vocabulary | None = None
        self._server: Server | None = None
        self._dialect: Dialect | None = None
        self._channel: Channel | None = None
        self._pool: Pool | None = None

    async def start(self) -> None:
        """Ask every server what it is; raises InputError where one does not fit."""
        servers, wanted = self._servers, self._servers.wanted
        self._vocabulary = await asyncio.to_thread(vocabulary_of, wanted.model)
        self._channel = channel = Channel(servers.key, servers.key_option, servers.timeout_s)
        for url in servers.urls:
            self._found[url] = await inspect(channel, url, wanted, self._vocabulary)
        self._server = together(self._found, wanted.role)
        self._dialect = self._server.dialect
        self.uncounted = f"a server elsewhere ({self._server.api}) does not show its steps"
        if wanted.scores and not self._dialect.reuses_prefix:
            _LOG.warning("%s: every score computes its whole prefix; to reuse it start vLLM with %s", self.name, _REUSE)
        self._pool = Pool(
            self.name, servers.urls, self._send, self._check, self._look,
            retries=servers.retries, patience_s=servers.patience_s,
        )  # fmt: skip
        self._pool.start()
        await self.reset()

    async def _send(self, url: str, path: str, body: dict[str, Any]) -> Any:
        assert self._channel is not None
        self._log.opened()
        try:
            return await self._channel.ask(url, path, body)
        finally:
            self._log.closed()

    async def _check(self, url: str, was_down: bool) -> None:
        """Whether an endpoint is well; one that was down must also be what it was before."""
        channel, vocabulary = self._channel, self._vocabulary
        assert channel is not None
        assert vocabulary is not None
        await channel.alive(url, CHECK_S)
        if was_down:
            try:
                async with asyncio.timeout(_RESTARTED_S):
                    now = await inspect(channel, url, self._servers.wanted, vocabulary)
            except TimeoutError:
                raise Unanswered(f"it is back, but answers nothing within {_RESTARTED_S:g} s", "endpoint") from None
            if now != self._found[url]:
                raise Unanswered(f"it came back as another server: {now}, not {self._found[url]}", "endpoint")

    async def _look(self, url: str) -> None:
        assert self._channel is not None
        self._log.look(url, await self._channel.text(url, "/metrics", CHECK_S))

    async def generate(self, call: GenerateCall) -> Generated:
        usage, (vocab, dialect, limit) = Usage(time.perf_counter()), self._live
        ids = request(call, vocab, limit)
        room = call.max_tokens if limit is None else min(call.max_tokens, limit - len(ids.full))
        if room < 1:
            usage.t_start_s = usage.t_end_s = time.perf_counter()
            return Generated(Piece("", (), vocab.vocab), True, usage)
        seed = int(np.random.SeedSequence(call.seed).generate_state(1, np.uint64)[0] >> np.uint64(1))
        figures = Figures(room, seed, vocab.eos_ids, self._keeps, self._salt)
        answer = await self._ask(call.chain, dialect.generate(ids.full, call, figures), dialect.written, usage)
        written = answer.value
        drawn, eos = drawn_until(call.stop, written.ids, vocab)
        kept = drawn[:-1] if eos else drawn
        self._spend(call.chain, usage, ids, answer.url, written.cached_tokens)
        self._fed[call.chain] = ids.full + drawn[:-1]
        if self._keeps and written.nll is not None:
            self._scores.add(TokenScores.keys(ids.full + kept, len(ids.full)), written.nll[: len(kept)])
        usage.tokens_new = len(drawn)
        full = not drawn or (limit is not None and len(ids.full) + len(drawn) >= limit)
        return Generated(Piece(vocab.decode(kept), tuple(kept), vocab.vocab, eos), full, usage)

    async def score(self, call: ScoreCall) -> Scored:
        usage, (vocab, _, limit) = Usage(time.perf_counter()), self._live
        ids = request(call, vocab, limit)
        keys = TokenScores.keys([*ids.full, END] if ids.eos else ids.full, ids.context)
        cached, known = True, await self._scores.settled(keys)
        while len(known) < len(keys):
            plan = scoring.plan(ids, len(known), vocab.eos_ids, sys.maxsize if limit is None else limit)
            if plan is None:
                said = f"an end of text after {len(ids.full)} tokens exceeds the model's context"
                raise EngineError(said, tries=usage.tries)
            unknown = keys[len(known) :]
            with self._scores.asking(unknown):
                nll = await self._rows(call.chain, plan, ids, usage, cached=cached)
                if nll is not None:
                    self._scores.add(unknown, nll)
                    known += nll
                    break
            if not cached:
                raise EngineError("the server returned no log-probabilities of the prompt", tries=usage.tries)
            await self._scores.answered(unknown[0])  # too much was cached: another chain may have asked for it
            before, known = len(known), await self._scores.settled(keys)
            cached = len(known) > before
        if not usage.t_start_s:  # all was known
            usage.t_start_s, usage.tokens_cached = usage.t_queued_s, ids.context
        self._fed[call.chain] = ids.full
        usage.tokens_new, usage.t_end_s = len(keys), time.perf_counter()
        return Scored(math.fsum(known) / len(known), usage)

    async def _rows(
        self, chain: ChainId, plan: scoring.Plan, ids: Request, usage: Usage, *, cached: bool
    ) -> list[float] | None:
        """Negative log-likelihoods of what is planned; None where the cache served too much."""
        _, dialect, _ = self._live
        nll: list[float] = []
        answer: Answered[Rows] | None = None
        if plan.tokens:
            ask = dialect.score(plan, self._salt, cached=cached)
            # Rows that the cache served hold anything, even what JSON cannot say.
            once = cached and dialect.reuses_prefix
            try:
                answer = await self._ask(chain, ask, lambda told: dialect.scored(plan, told), usage, once=once)
            except EngineError as error:
                if not once:
                    raise
                usage.tries = error.tries + 1
                return None
            self._spend(chain, usage, ids, answer.url, answer.value.cached_tokens)
            if answer.value.nll is None:
                return None
            nll += answer.value.nll
        if plan.next_ids:
            ask = dialect.next_token(plan, self._salt)
            last = await self._ask(chain, ask, lambda told: dialect.read_next(plan, told), usage)
            if answer is None:
                self._spend(chain, usage, ids, last.url, last.value.cached_tokens)
            assert last.value.nll is not None
            nll.append(-scoring.log_sum([-each for each in last.value.nll]))
        return nll

    async def _ask(
        self, chain: ChainId, ask: Ask, read: Callable[[Any], _T], usage: Usage, *, once: bool = False
    ) -> Answered[_T]:
        assert self._pool is not None
        try:
            answer = await self._pool.ask(chain, ask.path, ask.body, reader(ask.path, read), once=once)
        except EngineError as error:
            error.tries += usage.tries - 1
            raise
        usage.tries += answer.tries - 1
        usage.t_start_s = usage.t_start_s or answer.sent_s
        usage.t_end_s = time.perf_counter()
        return answer

    def _spend(self, chain: ChainId, usage: Usage, ids: Request, url: str, cached: int | None) -> None:
        """Write down how much of its context a request found computed, on top of what the call had cost before."""
        seen = common_prefix(self._fed.get(chain, []), ids.full)
        if (url, ids.prompt) in self._prompts:
            seen = max(seen, len(ids.prompt))
        self._prompts.add((url, ids.prompt))
        self._fed[chain] = ids.full
        usage.tokens_prefilled += max(0, ids.context - (cached or 0))
        if cached is None or usage.tokens_recomputed is None:
            usage.tokens_cached = usage.tokens_recomputed = None
            return
        usage.tokens_cached = min(cached, ids.context)
        usage.tokens_recomputed += max(0, min(seen, ids.context) - cached)

    def release(self, chain: ChainId) -> None:
        self._fed.pop(chain, None)
        if self._pool is not None:
            self._pool.release(chain)

    def stats(self) -> EngineStats:
        pool, stats = self._pool, self._log.stats()
        if pool is None:
            return stats
        return replace(
            stats,
            endpoints_up=sum(endpoint.up for endpoint in pool.endpoints),
            retried=pool.retried,
            throttled=pool.throttled,
            outages=[replace(outage) for outage in pool.outages],
        )

    def steps(self) -> Steps | None:
        return None

    async def settled(self) -> None:
        deadline_s = time.perf_counter() + _SETTLE_S
        await self._look_at_all()
        while not self._log.at_rest and time.perf_counter() < deadline_s:
            await asyncio.sleep(0.05)
            await self._look_at_all()

    async def _look_at_all(self) -> None:
        for url in self._servers.urls:
            with contextlib.suppress(Exception):  # then its figures are missing
                await self._look(url)

    async def reset(self, *, counted: bool = True) -> None:
        await self.settled()
        self._fed.clear()
        self._scores.clear()
        self._prompts.clear()
        self._salt = secrets.token_hex(8)
        self._log.reset()
        if self._pool is not None:
            self._pool.reset()

    def prompt_tokens(self, prompt: str) -> int:
        return len(self._live[0].encode_prompt(prompt))

    @property
    def placement(self) -> Placement | None:
        """Not known."""
        return None

    @property
    def max_context_tokens(self) -> int | None:
        return self._live[2]

    async def close(self) -> None:
        if self._pool is not None:
            await self._pool.close()
        if self._channel is not None:
            await self._channel.close()
        self._pool = self._dialect = None

    @property
    def _live(self) -> tuple[Vocabulary, Dialect, int | None]:
        if self._vocabulary is None or self._dialect is None or self._server is None:
            raise EngineError(f"engine {self.name!r} is not started, or closed")
        return self._vocabulary, self._dialect, self._server.max_context_tokens
