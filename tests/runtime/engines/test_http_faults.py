"""Servers that go wrong: what is asked again and where, what fails a chain, what ends the run, what is on record."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from atts_runtime.control.events import ChainId
from atts_runtime.engines import http_pool
from atts_runtime.engines.base import EngineError, EngineStats, OutageError, Piece
from atts_runtime.engines.http_errors import Unanswered, refused, retry_after_s
from atts_runtime.engines.http_metrics import _read
from atts_runtime.engines.vocabulary import Vocabulary
from atts_runtime.errors import InputError
from tests.runtime.engines.http_stub import Fault, Stub, stubs
from tests.runtime.engines.test_http import SEGMENT, Client, expected, quick, run, vocabulary

__all__ = ["quick", "run", "vocabulary"]
Run = Callable[..., Any]
TRUNCATED, ERROR, SLOW, DROPPED = Fault(truncate=True), Fault(status=500), Fault(hang_s=30.0), Fault(drop=True)
PASSING = {"truncated": TRUNCATED, "error": ERROR, "slow": SLOW, "dropped": DROPPED}


async def everybody(client: Client, chains: int = 16) -> EngineStats:
    """All chains write and are scored."""

    async def chain(index: int) -> None:
        piece = (await client.generate(index)).piece
        await client.score(index, piece)

    await asyncio.gather(*(chain(index) for index in range(chains)))
    return client.engine.stats()


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_passes_is_asked_again(run: Run, vocabulary: Vocabulary, fault: Fault) -> None:
    async def scenario(client: Client) -> tuple[float, int, EngineStats]:
        stub.faults.append(fault)
        scored = await client.score(0, piece)
        return scored.ell, scored.usage.tries, client.engine.stats()

    piece = Piece(SEGMENT, tuple(vocabulary.encode(SEGMENT)), vocabulary.vocab)
    with stubs(Stub(vocabulary)) as (stub,):
        ell, tries, stats = run(scenario, stub, timeout_s=1.0 if fault is SLOW else 20.0)
    assert ell == pytest.approx(expected(vocabulary, SEGMENT))
    assert (tries, stats.retried, stats.outages) == (2, 1, [])


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (TRUNCATED, "is not JSON"),
        (ERROR, "500 X: as told"),
        (SLOW, "no answer within 1 s"),
        (DROPPED, "the connection broke off"),
        (Fault(body=b"{}", status=500), "500 X"),
    ],
)
def test_what_does_not_pass_fails_the_call_alone(run: Run, vocabulary: Vocabulary, fault: Fault, said: str) -> None:
    async def scenario(client: Client) -> None:
        stub.always = fault
        with pytest.raises(EngineError, match=said) as raised:
            await client.generate(0)
        assert "(3 times)" in str(raised.value)
        stub.always = None
        await client.generate(1)
        assert client.engine.stats().outages == []

    with stubs(Stub(vocabulary)) as (stub,):
        run(scenario, stub, timeout_s=1.0 if fault is SLOW else 20.0)


@pytest.mark.parametrize("said", ["NaN", "-Infinity", "-9999.0", "3.5", "null"])
def test_what_is_no_likelihood_never_becomes_a_score(run: Run, vocabulary: Vocabulary, said: str) -> None:
    async def scenario(client: Client) -> None:
        stub.always = Fault(nan=said)
        with pytest.raises(EngineError, match="log-probability"):
            await client.score(0, piece)
        stub.always = None
        assert (await client.score(1, piece)).ell == pytest.approx(expected(vocabulary, SEGMENT))

    piece = Piece(SEGMENT, tuple(vocabulary.encode(SEGMENT)), vocabulary.vocab)
    with stubs(Stub(vocabulary)) as (stub,):
        run(scenario, stub)


def test_a_refusal_is_not_asked_again(run: Run, vocabulary: Vocabulary) -> None:
    async def scenario(client: Client) -> None:
        before = len(stub.seen)
        stub.always = Fault(status=400)
        with pytest.raises(EngineError, match="answered 400 X: as told"):
            await client.generate(0)
        assert len(stub.seen) == before + 1

    with stubs(Stub(vocabulary)) as (stub,):
        run(scenario, stub)


def test_a_storm_of_429_is_waited_out_as_the_server_asks(run: Run, vocabulary: Vocabulary) -> None:
    """No retry is spent on it, and nobody calls before the time."""

    async def scenario(client: Client) -> EngineStats:
        stub.seen.clear()
        stub.faults.extend([Fault(status=429, headers={"retry-after": "1"})] * 24)
        return await everybody(client)

    with stubs(Stub(vocabulary)) as (stub,):
        stats = run(scenario, stub, retries=0)
        refused = [seen.at_s for seen in stub.seen[:24]]
        after = [seen.at_s for seen in stub.seen if seen.at_s > refused[0] + 0.5]
    assert stats.throttled == 24
    assert stats.outages == []
    assert min(after) >= refused[0] + 1.0


def test_a_server_that_is_busy_leaves_its_calls_to_the_others(run: Run, vocabulary: Vocabulary) -> None:
    async def scenario(client: Client) -> EngineStats:
        busy.always = Fault(status=503, headers={"retry-after": "3600"})
        return await everybody(client)

    with stubs(Stub(vocabulary), Stub(vocabulary)) as (busy, free):
        stats = run(scenario, busy, free)
    assert stats.outages == []
    assert len(free.seen) >= 32


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0), ("soon", None)])
def test_retry_after_is_a_number_or_a_date(header: str, seconds: float | None) -> None:
    assert retry_after_s({"retry-after": header}) == seconds


def test_an_endpoint_that_dies_loses_nothing_to_the_other(run: Run, vocabulary: Vocabulary) -> None:
    async def scenario(client: Client) -> EngineStats:
        work = asyncio.ensure_future(everybody(client))
        await asyncio.sleep(0.1)  # calls are under way on both
        await asyncio.to_thread(dies.down)
        return await work

    with stubs(Stub(vocabulary, delay_s=0.2), Stub(vocabulary, delay_s=0.2)) as (dies, lives):
        stats = run(scenario, dies, lives, retries=0)
        url = dies.url
    (outage,) = stats.outages
    assert (outage.endpoint, outage.t_end_s) == (url, None)
    assert stats.endpoints_up == 1


def test_calls_wait_for_an_endpoint_that_comes_back(run: Run, vocabulary: Vocabulary) -> None:
    async def scenario(client: Client) -> EngineStats:
        work = asyncio.ensure_future(everybody(client))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(stub.down)
        await asyncio.sleep(0.5)
        assert not work.done()
        await asyncio.to_thread(stub.up)
        return await work

    with stubs(Stub(vocabulary, delay_s=0.2)) as (stub,):
        stats = run(scenario, stub, retries=0)
    (outage,) = stats.outages
    assert outage.t_end_s - outage.t_start_s >= 0.4
    assert stats.endpoints_up == 1


def test_an_endpoint_that_comes_back_as_another_model_stays_down(run: Run, vocabulary: Vocabulary) -> None:
    async def scenario(client: Client) -> None:
        await asyncio.to_thread(stub.down)
        with pytest.raises(OutageError):
            await client.generate(0)
        stub.name = "another"
        await asyncio.to_thread(stub.up)
        with pytest.raises(OutageError):
            await client.generate(0)
        stub.name = "m"
        await client.generate(0)

    with stubs(Stub(vocabulary)) as (stub,):
        run(scenario, stub, patience_s=0.4)


def test_an_endpoint_that_falls_silent_is_taken_for_dead(run: Run, vocabulary: Vocabulary) -> None:
    """No connection breaks; looks at it go unanswered, and its calls go elsewhere long before their own time is up."""

    async def scenario(client: Client) -> tuple[EngineStats, float]:
        begun_s = time.monotonic()
        silent.deaf = True
        stats = await everybody(client)
        silent.deaf = False
        return stats, time.monotonic() - begun_s

    with stubs(Stub(vocabulary), Stub(vocabulary)) as (silent, other):
        stats, took_s = run(scenario, silent, other, timeout_s=50.0, retries=0)
    assert took_s < 40
    assert "no answer within 2 s" in stats.outages[0].cause


def test_patience_ends_and_says_what_was_wrong(run: Run, vocabulary: Vocabulary) -> None:
    async def scenario(client: Client) -> None:
        await asyncio.to_thread(stub.down)
        with pytest.raises(
            OutageError, match=rf"no endpoint of the target answered within 0.3 s: {stub.url}: .*resume"
        ):
            await client.generate(0)

    with stubs(Stub(vocabulary)) as (stub,):
        run(scenario, stub, patience_s=0.3)


def test_what_fails_at_servers_that_are_well_is_told_by_the_call_and_ends_no_run(
    run: Run, vocabulary: Vocabulary
) -> None:
    """However long that takes: the patience is for those that are not."""

    async def scenario(client: Client) -> EngineError:
        stub.always = SLOW
        with pytest.raises(EngineError, match="no answer within 1 s") as raised:
            await client.generate(0)
        return raised.value

    with stubs(Stub(vocabulary)) as (stub,):
        assert run(scenario, stub, timeout_s=1.0, patience_s=0.9).tries == 3


def test_patience_does_not_count_what_endpoints_work_on_a_call() -> None:
    """It dies over the call twice, having worked longer than that is patient, but not for ever."""

    async def send(url: str, path: str, body: dict[str, Any]) -> str:
        asked.append(url)
        if len(asked) <= dies:
            await asyncio.sleep(1.2)
            raise Unanswered("gone", "endpoint")
        return "done"

    async def main() -> str:
        pool = http_pool.Pool("target", ("http://a",), send, well, well, retries=1, patience_s=1.0)
        pool.start()
        try:
            return (await pool.ask(ChainId(0, 0), "/path", {}, str)).value
        finally:
            await pool.close()

    async def well(*_: object) -> None:
        pass

    asked: list[str] = []
    dies = 2
    assert asyncio.run(main()) == "done"
    asked, dies = [], 1_000
    with pytest.raises(OutageError):
        asyncio.run(main())
    assert len(asked) == 3


def test_a_server_that_cannot_be_reached_is_named_before_the_run(run: Run, vocabulary: Vocabulary) -> None:
    with stubs(Stub(vocabulary)) as (stub,):
        stub.down()
        with pytest.raises(InputError, match=rf"--target-url: {stub.url} cannot be used: "):
            run(lambda client: client.generate(0), stub)


def test_a_server_without_tls_is_told_apart_from_one_that_is_down(run: Run, vocabulary: Vocabulary) -> None:
    with stubs(Stub(vocabulary)) as (stub,), pytest.raises(InputError, match=r"TLS: .*does it speak https at all"):
        run(lambda client: client.generate(0), stub, urls=(stub.url.replace("http:", "https:"),))


def test_an_answer_of_another_form_fails_the_call(run: Run, vocabulary: Vocabulary) -> None:
    async def scenario(client: Client) -> None:
        stub._tokens = lambda body: {"choices": []}  # type: ignore[method-assign]
        with pytest.raises(EngineError, match="has an unknown form"):
            await client.generate(0)

    with stubs(Stub(vocabulary)) as (stub,):
        run(scenario, stub)


def test_no_part_of_a_key_is_in_what_a_server_is_said_to_have_said() -> None:
    key = "sk-very-secret"
    for before in range(270, 305):
        said = str(refused(httpx.Response(400, text="x" * before + key), "there", key, "--key"))
        assert "sk-" not in said


def test_a_metric_that_is_no_number_is_left_out() -> None:
    page = "vllm:num_requests_running 2\nvllm:num_requests_running NaN\nvllm:num_requests_waiting +Inf\n"
    counters, gauges = _read(page)
    assert not counters
    assert list(gauges.values()) == [2.0]
