"""Answers that no server should give: they fail a call, are one line before a run, and end no watcher."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import httpx
import numpy as np
import pytest

from atts_runtime.engines.base import EngineError, Piece
from atts_runtime.engines.http_dialect import reader
from atts_runtime.engines.http_errors import Unanswered, refused, retry_after_s
from atts_runtime.engines.http_metrics import ServerLog
from atts_runtime.engines.http_vllm import VllmTokens
from atts_runtime.engines.vllm_scoring import Plan
from atts_runtime.engines.vocabulary import Vocabulary
from atts_runtime.errors import InputError
from tests.runtime.engines.http_stub import Fault, Stub, stubs
from tests.runtime.engines.test_http import SEGMENT, Client, Run, quick, run, vocabulary

__all__ = ["quick", "run", "vocabulary"]
DEEP = b"[" * 100_000


def written(ids: Any, likely: list[Any] | None = None, cached: Any = 0) -> bytes:
    """What a vLLM server says that it wrote."""
    told = None if likely is None else {"content": [{"logprob": each} for each in likely]}
    usage = {"prompt_tokens_details": {"cached_tokens": cached}}
    return json.dumps({"choices": [{"token_ids": ids, "logprobs": told}], "usage": usage}).encode()


def scored(rows: Any, cached: Any = 0) -> bytes:
    """What a vLLM server says that a prompt's tokens are."""
    return json.dumps({"prompt_logprobs": rows, "usage": {"prompt_tokens_details": {"cached_tokens": cached}}}).encode()


WRITTEN = {
    "deep": DEEP,
    "list": b"[]",
    "no ids": written(None),
    "text": written("abc"),
    "texts": written(["a"]),
    "fractions": written([1.5]),
    "truths": written([True]),
    "negative": written([-1]),
    "huge": written([10**30]),
    "too few likelihoods": written([5, 6], [-1.0]),
    "a likelihood beyond floats": written([5], [-(10**400)]),
    "cached text": written([5], cached="many"),
    "cached less than none": written([5], cached=-1),
}
SCORED = {
    "deep": DEEP,
    "list": b"[]",
    "text": scored("text"),
    "too few": scored([None]),
    "no rows": scored([None] * 100),
    "cached text": scored([None], cached="many"),
    "usage text": b'{"prompt_logprobs": [null], "usage": "text"}',
}


@pytest.mark.parametrize("body", WRITTEN.values(), ids=WRITTEN)
def test_what_was_not_written_fails_the_call(run: Run, vocabulary: Vocabulary, body: bytes) -> None:
    async def scenario(client: Client) -> int:
        stub.faults.extend([Fault(body=body)] * 3)
        with pytest.raises(EngineError, match=r"unknown form|not JSON") as raised:
            await client.generate(0)
        assert (await client.generate(0)).piece.ids  # the engine lives
        return raised.value.tries

    with stubs(Stub(vocabulary)) as (stub,):
        assert run(scenario, stub) == 3


@pytest.mark.parametrize("body", SCORED.values(), ids=SCORED)
def test_what_was_not_scored_fails_the_call(run: Run, vocabulary: Vocabulary, body: bytes) -> None:
    async def scenario(client: Client) -> int:
        stub.always = Fault(body=body)
        with pytest.raises(EngineError, match=r"unknown form|not JSON") as raised:
            await client.score(0, Piece(SEGMENT, tuple(vocabulary.encode(SEGMENT)), vocabulary.vocab))
        return raised.value.tries

    with stubs(Stub(vocabulary)) as (stub,):
        assert run(scenario, stub) == 4  # once by the cache, and as often as any call without it


def packed(rows: Any) -> str:
    """Rows as a vLLM server of runner v2 packs them."""
    buffer = io.BytesIO()
    np.save(buffer, rows)
    return base64.b64encode(buffer.getvalue()).decode()


BROKEN = base64.b64encode(b"\x93NUMPY\x01\x00\x04\x00(((\n").decode()  # a header that does not end
ZIPPED = base64.b64encode(b"PK\x03\x04").decode()


@pytest.mark.parametrize(
    "rows", ["", "!", BROKEN, ZIPPED, packed(np.zeros((2, 1))), packed(np.zeros(3)), packed(np.full((3, 1), "x"))]
)
def test_rows_that_are_packed_wrongly_are_no_answer(rows: str) -> None:
    plan = Plan([1, 2, 3, 4], 1, [2, 3, 4], ())
    read = reader("/path", lambda told: VllmTokens("m", "v2", tells_cached=True).scored(plan, told))
    assert read({"prompt_token_id_logprobs": packed(np.full((3, 1), -0.5))}).nll == [0.5, 0.5, 0.5]
    with pytest.raises(Unanswered, match="the answer to /path has an unknown form"):
        read({"prompt_token_id_logprobs": rows})


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("_models", []),
        ("_models", {"data": "text"}),
        ("_models", {"data": ["text"]}),
        ("_models", {"data": None}),
        ("_tokens", []),
        ("_tokens", {"usage": "text"}),
        ("_tokens", {"choices": ["text"], "prompt_logprobs": None}),
    ],
)
def test_an_odd_server_is_named_before_the_run(run: Run, vocabulary: Vocabulary, method: str, answer: Any) -> None:
    with stubs(Stub(vocabulary)) as (stub,):
        setattr(stub, method, lambda _: answer)
        with pytest.raises(InputError) as raised:
            run(lambda client: client.generate(0), stub)
    assert stub.url in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_a_server_says_of_itself_beyond_need_does_no_harm(run: Run, vocabulary: Vocabulary) -> None:
    with stubs(Stub(vocabulary, context=None)) as (stub,):
        card = {"id": "m", "owned_by": "vllm", "meta": "text"}
        stub._models = lambda _: {"data": [card]}  # type: ignore[method-assign]
        generated = run(lambda client: client.generate(0), stub)
    assert len(generated.piece.ids) == 6


def test_errors_of_any_form_are_errors() -> None:
    assert "400 Bad Request" in str(refused(httpx.Response(400, content=DEEP), "there", None, "--key"))
    assert retry_after_s({"retry-after": "Fri, 01 Jan 99999999999 00:00:00 GMT"}) is None


def test_a_page_of_metrics_beyond_numbers_is_read_for_the_rest() -> None:
    log = ServerLog()
    log.look("http://a", "vllm:num_requests_running 1e308\nvllm:num_requests_waiting 3\n")
    log.look("http://a", f'vllm:cache_config_info{{num_gpu_blocks="{"9" * 5000}",block_size="16"}} 1\n')
    log.look("http://a", "vllm:generation_tokens_total 7\nvllm:generation_tokens_total 1e300\n")
    stats = log.stats()
    assert (stats.running, stats.kv_capacity_tokens) == (None, None)
