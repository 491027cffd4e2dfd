"""The embedded engine: any Hugging Face causal language model, in this process, on CPU or CUDA.

torch runs in one worker thread per engine; asyncio callers only hand calls over and await their futures.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from atts_runtime.control.events import ChainId
from atts_runtime.engines.base import (
    EngineError,
    EngineStats,
    GenerateCall,
    Generated,
    Placement,
    ScoreCall,
    Scored,
    Usage,
)
from atts_runtime.engines.causal_lm import CausalLM
from atts_runtime.engines.steps import Steps
from atts_runtime.engines.worker import Worker
from atts_runtime.errors import InputError
from atts_runtime.profiler.counts import Rates
from atts_runtime.profiler.modelspec import ModelSpec


class TransformersEngine:
    """One model with continuous batching and per-chain KV (see `worker`).

    Args:
        model: folder or hub id of a causal language model.
        max_rows: chains that decode together.
        kv_budget_tokens: KV tokens kept for idle chains and prompts; None: as many as there are.
        device: torch device, default CUDA where there is one.
        threads: intra-op CPU threads; None leaves torch's own.
    """

    def __init__(
        self,
        model: str,
        *,
        name: str,
        max_rows: int = 64,
        kv_budget_tokens: int | None = None,
        device: str | None = None,
        threads: int | None = None,
    ) -> None:
        self.name, self.model = name, model
        self._device, self._max_rows, self._kv_budget, self._threads = device, max_rows, kv_budget_tokens, threads
        self._inbox: deque[Callable[[Worker], None]] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._worker: Worker | None = None
        self._closing = False
        self._waiting_since_s: float | None = None
        self.spec: ModelSpec | None = None
        self.uncounted: str | None = None

    async def start(self) -> None:
        """Load the model in the worker thread; raises InputError if it cannot serve."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(loop, ready), name=f"atts-{self.name}", daemon=True)
        self._thread.start()
        await ready

    async def generate(self, call: GenerateCall) -> Generated:
        result = await self._call(call)
        assert isinstance(result, Generated)
        return result

    async def score(self, call: ScoreCall) -> Scored:
        result = await self._call(call)
        assert isinstance(result, Scored)
        return result

    def release(self, chain: ChainId) -> None:
        self._post(lambda worker: worker.store.drop(chain))

    def stats(self) -> EngineStats:
        stats = self._live.stats
        phases = None if stats.phases is None else {name: replace(demand) for name, demand in stats.phases.items()}
        since_s = self._waiting_since_s
        waited_s = 0.0 if since_s is None else time.perf_counter() - since_s
        return replace(stats, phases=phases, idle_s=(stats.idle_s or 0.0) + waited_s)

    def steps(self) -> Steps | None:
        meter = self._live.meter
        return None if meter is None else meter.steps

    @property
    def placement(self) -> Placement:
        """Where the model runs, and in which arithmetic."""
        lm = self._live.lm
        return Placement(lm.device.type, lm.device.index, str(lm.dtype).removeprefix("torch."), self._threads)

    def prompt_tokens(self, prompt: str) -> int:
        return len(self._live.lm.encode_prompt(prompt))

    @property
    def max_context_tokens(self) -> int | None:
        return self._live.lm.max_context_tokens

    async def settled(self) -> None:
        await self._between_steps(lambda worker: None)

    async def reset(self, *, counted: bool = True) -> None:
        await self._between_steps(lambda worker: worker.reset(counted=counted))

    async def _between_steps(self, action: Callable[[Worker], None]) -> None:
        """Have the worker thread do something, and wait for it."""
        done = threading.Event()

        def act(worker: Worker) -> None:
            action(worker)
            done.set()

        self._hand_over(act)
        await asyncio.get_running_loop().run_in_executor(None, done.wait)

    async def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join)

    @property
    def _live(self) -> Worker:
        if self._worker is None:
            raise EngineError(f"engine {self.name!r} is not started")
        return self._worker

    def _post(self, message: Callable[[Worker], None]) -> bool:
        """Give the worker thread a message. False where none runs; else the message will be handled."""
        with self._wake:
            if self._worker is None or self._closing:
                return False
            self._inbox.append(message)
            self._wake.notify()
            return True

    def _hand_over(self, message: Callable[[Worker], None]) -> None:
        if not self._post(message):
            raise EngineError(f"engine {self.name!r} is {'closed' if self._closing else 'not started'}")

    async def _call(self, call: GenerateCall | ScoreCall) -> Generated | Scored:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Generated | Scored] = loop.create_future()

        def settle(result: Generated | Scored | EngineError) -> None:
            if future.done():
                return
            if isinstance(result, EngineError):
                future.set_exception(result)
            else:
                future.set_result(result)

        def reply(result: Generated | Scored | EngineError) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result)

        usage, job = Usage(time.perf_counter()), None

        def add(worker: Worker) -> None:
            nonlocal job
            try:
                job = worker.add(call, reply, usage)
            except Exception as error:
                reply(EngineError(f"engine {self.name!r} cannot take the call: {type(error).__name__}: {error}"))

        def drop(worker: Worker) -> None:
            if job is not None:
                worker.drop(job)

        self._hand_over(add)
        try:
            return await future
        except asyncio.CancelledError:
            self._post(drop)
            raise

    # -- the worker thread

    def _run(self, loop: asyncio.AbstractEventLoop, ready: asyncio.Future[None]) -> None:
        def tell(action: Callable[..., Any], *args: Any) -> None:
            loop.call_soon_threadsafe(lambda: None if ready.done() else action(*args))

        try:
            if self._threads is not None:
                torch.set_num_threads(self._threads)
            lm = CausalLM(self.model, self._device)
            self._measure(lm)
            rates = None if self.spec is None else Rates(self.spec)
            worker = self._worker = Worker(lm, max_rows=self._max_rows, kv_budget_tokens=self._kv_budget, rates=rates)
        except InputError as error:
            tell(ready.set_exception, error)
            return
        except Exception as error:
            tell(ready.set_exception, EngineError(f"engine {self.name!r} failed to start: {error}"))
            return
        tell(ready.set_result, None)
        while self._take_messages(worker):
            try:
                worker.step()
            except Exception as error:
                worker.fail_all(
                    EngineError(f"engine {self.name!r} failed: {type(error).__name__}: {error}", retryable=True)
                )
        worker.fail_all(EngineError(f"engine {self.name!r} was closed"))

    def _measure(self, lm: CausalLM) -> None:
        """Take the model's dimensions, or note why they are not known."""
        size = lm.dtype.itemsize
        try:
            self.spec = ModelSpec.from_config(lm.model.config, bytes_per_weight=size, bytes_per_kv_element=size)
        except InputError as error:
            self.uncounted = str(error)

    def _take_messages(self, worker: Worker) -> bool:
        """Handle what was posted; sleeps while there is nothing to do. False once closing."""
        began_s = self._waiting_since_s = time.perf_counter()
        with self._wake:
            while not (self._inbox or worker.has_work or self._closing):
                self._wake.wait()
            messages = list(self._inbox)
            self._inbox.clear()
            closing = self._closing  # read together with the inbox, so that what was posted before is handled
        woke_s, self._waiting_since_s = time.perf_counter(), None
        worker.stats.idle_s = (worker.stats.idle_s or 0.0) + woke_s - began_s
        for message in messages:
            message(worker)
        worker.stats.busy_s += time.perf_counter() - woke_s
        return not closing
