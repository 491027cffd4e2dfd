"""A server on a real socket that answers as vLLM or SGLang would, and goes wrong as told.

Its model is a formula: a token's likelihood depends on the token before it, what is drawn on the seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from atts_runtime.engines.vocabulary import Vocabulary

CERTIFICATE = Path(__file__).with_name("localhost.pem")
Answer = tuple[int, dict[str, str], bytes]
_CALLS = ("/v1/completions", "/inference/v1/generate", "/generate")


def nll(before: int, token: int) -> float:
    """What the stub's model makes of a token."""
    return 0.1 + ((31 * before + 7 * token) % 50) / 10


@dataclass
class Fault:
    """How an answer to a call goes wrong. `nan`: its log-probabilities read so; `hang`: none for so many seconds."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    truncate: bool = False
    nan: str | None = None
    hang_s: float = 0.0
    drop: bool = False


@dataclass
class Seen:
    """A call that came in."""

    path: str
    body: dict[str, Any]
    at_s: float
    authorization: str | None


class Stub:
    """A server of `vocabulary` on a port of its own.

    Args:
        kind: vllm (with `/inference/v1/generate`), completions (a vLLM without), sglang, llamacpp or other.
        key: what it wants for a bearer token.
        offset: added to all ids that its tokenizer gives.
        tls: speak https, with a certificate (`CERTIFICATE`) that nobody but itself has signed.
    """

    def __init__(
        self, vocabulary: Vocabulary, *, kind: str = "vllm", name: str = "m", key: str | None = None, offset: int = 0,
        context: int | None = 1024, logprobs: bool = True, delay_s: float = 0.0, tls: bool = False,
    ) -> None:  # fmt: skip
        self._vocabulary, self.kind, self.name, self._key, self._offset = vocabulary, kind, name, key, offset
        self._context, self._logprobs, self._delay_s = context, logprobs, delay_s
        self._tls: ssl.SSLContext | None = None
        if tls:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(CERTIFICATE)
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.deaf = False  # to everything
        self.seen: list[Seen] = []
        self.counts: Counter[str] = Counter()
        self.dropped = 0  # calls whose client hung up
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._port = 0
        self.up()

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self._port}"

    def up(self) -> None:
        """Listen, on the same port as before."""

        async def listen() -> None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, ssl=self._tls)
            self._port = self._server.sockets[0].getsockname()[1]

        asyncio.run_coroutine_threadsafe(listen(), self._loop).result(10)

    def down(self) -> None:
        """Die: connections break off, new ones are refused."""

        async def die() -> None:
            assert self._server is not None
            for listening in self._server.sockets:
                self._loop.remove_reader(listening.fileno())
            for _ in range(5):  # what it has just accepted becomes a connection; of a closed server it would be lost
                await asyncio.sleep(0)
            self._server.close()
            for writer in list(self._open):
                writer.transport.abort()

        asyncio.run_coroutine_threadsafe(die(), self._loop).result(10)

    def close(self) -> None:
        self.down()

        async def rest() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for writer in list(self._open):
                writer.transport.abort()
            await asyncio.sleep(0.01)  # for the sockets to close

        asyncio.run_coroutine_threadsafe(rest(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- HTTP

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                first = await reader.readexactly(1)
                if first == b"\x16":  # a TLS handshake, which a server without TLS takes for a bad request
                    writer.write(b"HTTP/1.1 400 X\r\n\r\n")
                    await writer.drain()
                    break
                head = (first + await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                path = head[0].split(" ")[1]
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:]) if k}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                fault = self._fault(path)
                if await self._hung_up(reader, fault.hang_s + (self._delay_s if path in _CALLS else 0.0)) or fault.drop:
                    break
                status, more, content = self._answer(path, headers, json.loads(body or b"{}"), fault)
                lines = [
                    f"HTTP/1.1 {status} X",
                    f"content-length: {len(content)}",
                    *(f"{k}: {v}" for k, v in more.items()),
                ]
                writer.write("\r\n".join([*lines, "", ""]).encode() + content)
                await writer.drain()
        writer.transport.abort()

    async def _hung_up(self, reader: asyncio.StreamReader, wait_s: float) -> bool:
        """Wait; whether the client went away meanwhile."""
        deadline_s = time.monotonic() + wait_s
        while self.deaf or time.monotonic() < deadline_s:
            await asyncio.sleep(0.005)
            if reader.at_eof():
                self.dropped += 1
                return True
        return False

    def _fault(self, path: str) -> Fault:
        if path not in _CALLS:
            return Fault()
        return self.faults.popleft() if self.faults else self.always or Fault()

    def _answer(self, path: str, headers: dict[str, str], body: dict[str, Any], fault: Fault) -> Answer:
        self.counts[path] += 1
        authorization = headers.get("authorization")
        if path in _CALLS:
            self.seen.append(Seen(path, body, time.monotonic(), authorization))
        if self._key is not None and authorization != f"Bearer {self._key}" and path != "/health":
            return 401, {}, json.dumps({"error": {"message": f"wrong key {authorization}"}}).encode()
        if fault.status != 200 or fault.body is not None:
            return fault.status, fault.headers, fault.body or b'{"error": {"message": "as told"}}'
        answers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "/v1/models": self._models,
            "/health": lambda _: {},
            "/tokenize": lambda asked: {"tokens": [i + self._offset for i in self._vocabulary.encode(asked["prompt"])]},
        }
        kinds: dict[str, dict[str, Callable[[dict[str, Any]], Any]]] = {
            "vllm": {"/v1/completions": self._completions, "/inference/v1/generate": self._tokens},
            "sglang": {"/generate": self._sglang},
        }
        answers |= kinds.get(self.kind, {"/v1/completions": self._completions})
        if path not in answers:
            return 404, {}, b'{"detail": "Not Found"}'
        try:
            content = json.dumps(answers[path](body))
        except ValueError as error:
            return 400, {}, json.dumps({"error": {"message": str(error)}}).encode()
        if fault.nan is not None:
            content = re.sub(r'"logprob": -[0-9.]+', f'"logprob": {fault.nan}', content)
        return 200, {}, content.encode()[: len(content) // 2 if fault.truncate else None]

    # -- the model

    def _models(self, _: Any) -> dict[str, Any]:
        owner = {"completions": "vllm", "other": "someone"}.get(self.kind, self.kind)
        return {"data": [{"id": self.name, "owned_by": owner, "max_model_len": self._context}]}

    def _draw(self, ids: Sequence[int], n: int, seed: int, stop: Sequence[str], ends: Sequence[int]) -> list[int]:
        if self._context is not None and len(ids) + n > self._context:
            raise ValueError(f"{len(ids)} + {n} tokens are more than the context of {self._context}")
        drawn: list[int] = []
        for _ in range(n):
            before = drawn[-1] if drawn else ids[-1]
            drawn.append(4 + (before * 17 + seed + len(drawn)) % (self._vocabulary.size - 4))
            text = self._vocabulary.decode(drawn)
            if drawn[-1] in ends or any(each in text for each in stop):
                break
        return drawn

    def _rows(self, ids: Sequence[int]) -> list[float | None]:
        return [None, *(-nll(a, b) for a, b in pairwise(ids))]

    def _prompt_logprobs(self, ids: Sequence[int]) -> list[Any] | None:
        rows = self._rows(ids)
        return [r and {str(t): {"logprob": r}} for r, t in zip(rows, ids, strict=True)] if self._logprobs else None

    def _completions(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["model"] != self.name:
            raise ValueError("no such model")
        ids = body["prompt"]
        drawn = self._draw(
            ids, body["max_tokens"], body.get("seed") or 0, body.get("stop", []), body.get("stop_token_ids", [])
        )
        choice: dict[str, Any] = {"text": "x"} if self.kind == "llamacpp" else {"token_ids": drawn}
        if body.get("logprob_token_ids"):
            choice["logprobs"] = {
                "top_logprobs": [{f"token_id:{t}": -nll(ids[-1], t) for t in body["logprob_token_ids"]}]
            }
        if body.get("prompt_logprobs") is not None:
            choice["prompt_logprobs"] = self._prompt_logprobs(ids)
        return {"choices": [choice], "usage": {}}

    def _tokens(self, body: dict[str, Any]) -> dict[str, Any]:
        ids, told = body["token_ids"], body["sampling_params"]
        if "prompt_logprob_token_ids" in told:
            raise ValueError("prompt_logprob_token_ids requires the V2 model runner")
        drawn = self._draw(
            ids, told["max_tokens"], told.get("seed") or 0, told.get("stop", []), told.get("stop_token_ids", [])
        )
        wanted = told.get("prompt_logprobs") is not None
        return {
            "choices": [{"token_ids": drawn, "logprobs": None}],
            "usage": {"prompt_tokens_details": {"cached_tokens": 0}},
            "prompt_logprobs": self._prompt_logprobs(ids) if wanted else None,
        }

    def _sglang(self, body: dict[str, Any]) -> dict[str, Any]:
        ids, told = body["input_ids"], body["sampling_params"]
        drawn = self._draw(
            ids,
            told["max_new_tokens"],
            told.get("sampling_seed", 0),
            told.get("stop", []),
            told.get("stop_token_ids", []),
        )
        meta: dict[str, Any] = {"cached_tokens": 0}
        if body.get("return_logprob"):
            start = body.get("logprob_start_len", len(ids))
            rows = self._rows(ids)[start:]
            meta["input_token_logprobs"] = [
                [r if i else None, t, None] for i, (r, t) in enumerate(zip(rows, ids[start:], strict=True))
            ]
            drawn_at = told["temperature"] or 1.0  # greedy ones are the model's own
            meta["output_token_logprobs"] = [[-nll(a, b) / drawn_at, b, None] for a, b in pairwise([ids[-1], *drawn])]
        if body.get("token_ids_logprob"):
            meta["output_token_ids_logprobs"] = [[[-nll(ids[-1], t), t, None] for t in body["token_ids_logprob"]]]
        return {"output_ids": drawn, "meta_info": meta}


@contextlib.contextmanager
def stubs(*made: Stub) -> Iterator[tuple[Stub, ...]]:
    """Servers that are closed in the end."""
    try:
        yield made
    finally:
        for stub in made:
            stub.close()
