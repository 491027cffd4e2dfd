"""Engines that must all behave alike, each served once for all tests, and plain transformers to hold them against."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atts_runtime.control.events import ChainId
from atts_runtime.engines.base import Engine, GenerateCall, Generated, Piece, ScoreCall, Scored
from tests.conftest import save_tiny, words_tokenizer

PROMPT = "37 (a)+45 (b)-28 (c)+91\n\n"
DEADLINE_S = 400  # for one scenario: an engine that hangs fails its test
ROWS = 64


def embedded(folder: Path) -> Engine:
    from atts_runtime.engines.transformers import TransformersEngine

    return TransformersEngine(str(folder), name="embedded", device="cpu", threads=1, max_rows=ROWS)


def vllm(folder: Path) -> Engine:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed (it wants an environment of its own: make test-vllm)")
    from atts_runtime.engines.vllm import VllmEngine
    from atts_runtime.engines.vllm_launch import Launch

    return VllmEngine(Launch(str(folder), "vllm", ROWS, threads=1, share=0.2))


def http(folder: Path) -> Engine:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed (it wants an environment of its own: make test-vllm)")
    from atts_runtime.engines.http import HttpEngine
    from atts_runtime.engines.http_server import Servers, Wanted
    from tests.runtime.vllm_server import VllmServer

    class Served(HttpEngine):
        """Comes and goes with a server of its own."""

        def __init__(self) -> None:
            self.server = VllmServer(folder)
            super().__init__(Servers(Wanted("http", str(folder), None, scores=True), (self.server.url,)))

        async def start(self) -> None:
            await asyncio.to_thread(self.server.start)
            await super().start()

        async def close(self) -> None:
            await super().close()
            self.server.close()

    return Served()


# An engine joins the suite here: how to serve a folder with it.
ENGINES = [
    pytest.param(embedded, id="embedded"),
    pytest.param(vllm, id="vllm", marks=[pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]),
    pytest.param(http, id="http", marks=[pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]),
]


def bytes_tokenizer() -> Any:
    """A token a byte, so that any text has ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    from atts_runtime.models.tokenizer import BOS, EOS, PAD, UNK

    words = [PAD, BOS, EOS, UNK, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, words.index(BOS))]
    )
    tokenizer.add_special_tokens([PAD, BOS, EOS, UNK])
    return tokenizer


@pytest.fixture(scope="session")
def words_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words for tokens; never ends its text."""
    folder = tmp_path_factory.mktemp("models") / "words"
    return save_tiny(folder, words_tokenizer(), width=64, heads=2, seed=1, eos_logit=-1e3)


@pytest.fixture(scope="session")
def bytes_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bytes for tokens; ends its text after some."""
    folder = tmp_path_factory.mktemp("models") / "bytes"
    return save_tiny(folder, bytes_tokenizer(), width=64, heads=2, seed=3, eos_logit=7.0)


@dataclass
class Client:
    """A started engine on an event loop of its own, with short names for what the tests ask of it."""

    engine: Engine
    loop: asyncio.AbstractEventLoop

    def run(self, scenario: Callable[[], Coroutine[Any, Any, Any]], *, reset: bool = True) -> Any:
        """The result of ``scenario()``, on an engine that has forgotten what came before."""

        async def whole() -> Any:
            if reset:
                await self.engine.reset()
            return await asyncio.wait_for(scenario(), DEADLINE_S)

        return asyncio.run_coroutine_threadsafe(whole(), self.loop).result(2 * DEADLINE_S)

    async def generate(
        self,
        chain: int = 0,
        *pieces: Piece,
        prompt: str = PROMPT,
        n: int = 8,
        temperature: float = 0.0,
        stop: str | None = None,
    ) -> Generated:
        call = GenerateCall(ChainId(0, chain), prompt, pieces, n, temperature, stop, (chain,))
        return await self.engine.generate(call)

    async def score(self, chain: int, *pieces: Piece, prompt: str = PROMPT) -> Scored:
        return await self.engine.score(ScoreCall(ChainId(0, chain), prompt, pieces))


Serve = Callable[[Path], Client]


@pytest.fixture(scope="session")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in a thread for the whole session, as long as its engines."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(scope="session", params=ENGINES)
def serve(request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop) -> Iterator[Serve]:
    """``serve(folder)``: a client of an engine that serves the folder, started once."""
    clients: dict[Path, Client] = {}

    def start(folder: Path) -> Client:
        if folder not in clients:
            engine = request.param(folder)
            clients[folder] = Client(engine, loop)
            clients[folder].run(engine.start, reset=False)
        return clients[folder]

    yield start
    for client in clients.values():
        client.run(client.engine.close, reset=False)
