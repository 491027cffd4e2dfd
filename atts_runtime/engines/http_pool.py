"""Endpoints of one model: which a call goes to, whether they are well, and what becomes of a call when one is not.

A chain goes back to the endpoint that holds its prefix, unless that is down or far more loaded; else to the least
loaded. A call whose endpoint dies goes to another, or waits for one to come back, up to the patience; then the run
ends, to be resumed. What an endpoint fails at while it says that it is well counts against the call's own retries, and
not against the patience.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from atts_runtime.control.events import ChainId
from atts_runtime.engines.base import EngineError, Outage, OutageError
from atts_runtime.engines.http_errors import Unanswered

_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)
_BACKOFF_S, _BACKOFF_MOST_S = 0.5, 30.0
_LOOK_S = 1.0  # between two looks at an endpoint
_MISSES = 3  # looks in a row without an answer after which an endpoint that breaks no connection is taken for dead
CHECK_S = 10.0  # for an answer to a health check


@dataclass(slots=True, eq=False)
class Endpoint:
    """A server's address. `calls` are under way there; `paused_until_s`: it asked not to be called before."""

    url: str
    up: bool = True
    paused_until_s: float = 0.0
    calls: set[asyncio.Task[Any]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Answered(Generic[_T]):
    """What came back from `url`, after so many `tries`, the last of them sent at `sent_s`."""

    value: _T
    url: str
    tries: int
    sent_s: float


class Pool:
    """The endpoints that serve `name`.

    Args:
        send: posts a body to a path of an address and returns the answer; raises Unanswered, EngineError, InputError.
        check: returns where a server is well, given its address and whether it has just been down; raises as `send`.
        look: called every second with the address of each endpoint that is well.
        retries: times a call may fail at an endpoint that is well, beyond the first.
        patience_s: how long a call waits for an endpoint; what one worked on it before it died does not count, so
            often as it may fail.
    """

    def __init__(
        self,
        name: str,
        urls: tuple[str, ...],
        send: Callable[[str, str, dict[str, Any]], Awaitable[Any]],
        check: Callable[[str, bool], Awaitable[None]],
        look: Callable[[str], Awaitable[None]],
        *,
        retries: int,
        patience_s: float,
    ) -> None:
        self.name = name
        self.endpoints = [Endpoint(url) for url in urls]
        self.reset()
        self._send_to, self._check, self._look = send, check, look
        self._retries, self._patience_s = retries, patience_s
        self._homes: dict[ChainId, Endpoint] = {}
        self._changed = asyncio.Event()
        self._random = random.Random()
        self._watches: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Look after the endpoints from now on."""
        self._watches = [asyncio.create_task(self._watch(endpoint)) for endpoint in self.endpoints]

    async def close(self) -> None:
        """Stop that, and drop the calls under way."""
        tasks = [*self._watches, *(call for endpoint in self.endpoints for call in endpoint.calls)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def reset(self) -> None:
        """Forget what went wrong so far; an outage that lasts begins anew."""
        self.retried = self.throttled = 0
        now_s = time.perf_counter()
        self.outages = [Outage(e.url, "it was down before", now_s) for e in self.endpoints if not e.up]

    def release(self, chain: ChainId) -> None:
        """Forget where a chain was."""
        self._homes.pop(chain, None)

    # -- calls

    async def ask(
        self, chain: ChainId, path: str, body: dict[str, Any], read: Callable[[Any], _T], *, once: bool = False
    ) -> Answered[_T]:
        """`read` of the answer, from whichever endpoint gives one that it takes (it raises Unanswered otherwise).

        `once`: what fails is made again in another way, which is not for the pool to do.
        Raises EngineError where the call is refused or failed too often, OutageError after the patience, InputError
        where the key is not taken.
        """
        tries = failures = 0
        worked = 0  # times that an endpoint died over it
        since_s: float | None = None  # when it began to wait, later by what those have worked on it
        while True:
            endpoint = self._ready(chain)
            if endpoint is None:
                since_s = time.perf_counter() if since_s is None else since_s
                await self._until_ready(since_s)
                continue
            tries += 1
            sent_s = time.perf_counter()
            try:
                return Answered(read(await self._send(endpoint, path, body)), endpoint.url, tries, sent_s)
            except EngineError as error:
                error.tries = tries
                raise
            except Unanswered as failure:
                failed_s = time.perf_counter()
                if await self._counts(endpoint, failure, tries):
                    failures, since_s = failures + 1, None
                    if failures > (0 if once else self._retries):
                        self.retried += once
                        said = f"{endpoint.url}: {failure} ({failures} times)"
                        raise EngineError(said, tries=tries) from failure
                else:
                    forgiven = failure.blame != "load" and worked <= self._retries
                    worked += forgiven
                    since_s = failed_s if since_s is None else since_s + forgiven * (failed_s - sent_s)
                    self._within(since_s, str(failure))
                self.retried += 1
                if failure.blame != "endpoint":
                    await asyncio.sleep(self._random.uniform(0.5, 1.0) * _backoff_s(tries))

    async def _send(self, endpoint: Endpoint, path: str, body: dict[str, Any]) -> Any:
        call = asyncio.ensure_future(self._send_to(endpoint.url, path, body))
        endpoint.calls.add(call)
        try:
            return await call
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if endpoint.up or (task is not None and task.cancelling()):
                raise
            raise Unanswered("it stopped answering", "endpoint") from None  # `_down` cancelled the request alone
        finally:
            endpoint.calls.discard(call)

    async def _counts(self, endpoint: Endpoint, failure: Unanswered, tries: int) -> bool:
        """Whether a failure counts against the call; what it says of the endpoint is noted."""
        if failure.blame == "endpoint":
            self._down(endpoint, str(failure))
            return False
        if failure.blame == "load":
            self.throttled += 1
            wait_s = _backoff_s(tries) if failure.retry_after_s is None else failure.retry_after_s
            endpoint.paused_until_s = max(endpoint.paused_until_s, time.perf_counter() + wait_s)
            return False
        unwell = await self._unwell(endpoint)
        if unwell is not None:
            self._down(endpoint, f"{failure}; {unwell}")
        return unwell is None

    def _ready(self, chain: ChainId) -> Endpoint | None:
        """Where a call of a chain goes; None: nowhere now."""
        now_s = time.perf_counter()
        ready = [e for e in self.endpoints if e.up and e.paused_until_s <= now_s]
        if not ready:
            return None
        least = min(ready, key=lambda e: len(e.calls))
        home = self._homes.get(chain)
        if home not in ready or len(home.calls) > 2 * len(least.calls) + 8:
            home = self._homes[chain] = least
        return home

    async def _until_ready(self, since_s: float) -> None:
        """Until something changes, the next endpoint may be called again, or the patience is at an end."""
        self._within(since_s, self._troubles())
        now_s = time.perf_counter()
        waits = [since_s + self._patience_s, *(e.paused_until_s for e in self.endpoints if e.up)]
        try:
            async with asyncio.timeout(max(0.0, min(waits) - now_s)):
                await self._changed.wait()
        except TimeoutError:
            pass

    def _within(self, since_s: float, trouble: str) -> None:
        if time.perf_counter() - since_s >= self._patience_s:
            raise OutageError(
                f"no endpoint of the {self.name} answered within {self._patience_s:g} s: {trouble}; finished chains "
                "are kept, go on with --resume once one is back"
            )

    def _troubles(self) -> str:
        causes = {outage.endpoint: outage.cause for outage in self.outages if outage.t_end_s is None}
        return "; ".join(f"{e.url}: {causes.get(e.url, 'it asks to be called later')}" for e in self.endpoints)

    # -- health

    async def _watch(self, endpoint: Endpoint) -> None:
        misses = 0
        while True:
            await asyncio.sleep(self._random.uniform(0.75, 1.25) * _LOOK_S)
            unwell = await self._unwell(endpoint)
            misses = 0 if unwell is None else misses + 1
            if unwell is None and not endpoint.up:
                self._back(endpoint)
            elif endpoint.up and misses >= _MISSES and unwell is not None:
                self._down(endpoint, unwell)
            if unwell is None:
                with contextlib.suppress(Exception):  # then figures are missing for once
                    await self._look(endpoint.url)

    async def _unwell(self, endpoint: Endpoint) -> str | None:
        """What ails an endpoint, if anything does."""
        try:
            await self._check(endpoint.url, not endpoint.up)
        except Exception as error:  # whatever it is, the endpoint is to be looked at again
            return str(error) or repr(error)
        return None

    def _down(self, endpoint: Endpoint, cause: str) -> None:
        if not endpoint.up:
            return
        endpoint.up = False
        self.outages.append(Outage(endpoint.url, cause, time.perf_counter()))
        _LOG.warning("%s: %s is down: %s; its calls go elsewhere or wait", self.name, endpoint.url, cause)
        for call in list(endpoint.calls):
            call.cancel()
        self._notify()

    def _back(self, endpoint: Endpoint) -> None:
        endpoint.up, endpoint.paused_until_s = True, 0.0
        outage = next(o for o in reversed(self.outages) if o.endpoint == endpoint.url)
        outage.t_end_s = time.perf_counter()
        _LOG.warning("%s: %s is back after %.1f s", self.name, endpoint.url, outage.t_end_s - outage.t_start_s)
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _backoff_s(tries: int) -> float:
    """Longest wait before the next try."""
    return min(_BACKOFF_MOST_S, _BACKOFF_S * 2.0 ** (tries - 1))
