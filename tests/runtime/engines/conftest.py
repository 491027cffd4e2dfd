"""An engine to talk to, and the same model without the engine to compare it with."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from atts_runtime.control.events import ChainId
from atts_runtime.engines.base import GenerateCall, Generated, Piece, ScoreCall, Scored
from atts_runtime.engines.transformers import TransformersEngine
from atts_runtime.engines.worker import Worker
from tests.runtime.engines.watching import Pass, watch

PROMPT = "37 (a)+45 (b)-28 (c)+91\n\n"
DEADLINE_S = 60  # for a whole scenario: an engine that hangs fails its test


@dataclass
class Client:
    """A started engine, with short names for what the tests ask of it."""

    engine: TransformersEngine
    passes: list[Pass] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Write down each forward pass."""
        watch(self.worker.lm, self.passes.append)

    @property
    def worker(self) -> Worker:
        assert self.engine._worker is not None
        return self.engine._worker

    async def generate(
        self,
        chain: int = 0,
        *pieces: Piece,
        prompt: str = PROMPT,
        n: int = 8,
        temperature: float = 1.0,
        stop: str | None = None,
        seed: tuple[int, ...] | None = None,
    ) -> Generated:
        """By default each chain samples from its own stream."""
        seed = (chain,) if seed is None else seed
        return await self.engine.generate(GenerateCall(ChainId(0, chain), prompt, pieces, n, temperature, stop, seed))

    async def score(self, chain: int, *pieces: Piece, prompt: str = PROMPT) -> Scored:
        return await self.engine.score(ScoreCall(ChainId(0, chain), prompt, pieces))

    async def together(self, *calls: Coroutine[Any, Any, Any], return_exceptions: bool = False) -> list[Any]:
        """Results of calls that the engine sees all at once."""
        gate = threading.Event()
        self.engine._post(lambda _: gate.wait())
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(*tasks, return_exceptions=return_exceptions)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Models this small gain nothing from a second thread, and on a busy machine lose much."""
    torch.set_num_threads(1)


Serve = Callable[..., Any]


@pytest.fixture(scope="session", params=["fused", "transformers"])
def tiny_target(tiny_target: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The model, and one with another activation: the fused forward pass leaves it to transformers."""
    if request.param == "fused":
        return tiny_target
    copy = tmp_path_factory.mktemp("models") / "target"
    shutil.copytree(tiny_target, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu"}))
    return copy


@pytest.fixture(scope="session")
def serve() -> Serve:
    """``serve(scenario, *folders, **options)``: runs the coroutine ``scenario(*clients)``, an engine a folder."""

    def run(scenario: Callable[..., Awaitable[Any]], *folders: Path, **options: Any) -> Any:
        async def main() -> Any:
            engines = [
                TransformersEngine(str(folder), name=folder.name, device="cpu", threads=1, **options)
                for folder in folders
            ]
            try:
                for engine in engines:
                    await engine.start()
                return await asyncio.wait_for(scenario(*map(Client, engines)), DEADLINE_S)
            finally:
                for engine in engines:
                    await engine.close()

        return asyncio.run(main())

    return run


class Plain:
    """A model by plain transformers: one full forward pass, no cache, no batch."""

    def __init__(self, folder: Path) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.eos: int = self.tokenizer.eos_token_id

    def prompt(self, prompt: str = PROMPT) -> list[int]:
        return list(self.tokenizer.encode(prompt))

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids))

    @torch.inference_mode()
    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """[len(ids), vocab]"""
        logits: torch.Tensor = self.model(torch.tensor([list(ids)]), use_cache=False).logits[0]
        return logits

    def nll(self, context: Sequence[int], segment: Sequence[int]) -> float:
        """Mean negative log-likelihood of the segment after the context, nats per token."""
        log_p = self.logits([*context, *segment]).double().log_softmax(-1)[len(context) - 1 : -1]
        return float(-log_p.gather(1, torch.tensor([list(segment)]).T).mean())

    @torch.inference_mode()
    def greedy(self, context: Sequence[int], n: int) -> list[int]:
        out = self.model.generate(
            torch.tensor([list(context)]),
            attention_mask=torch.ones(1, len(context), dtype=torch.long),
            do_sample=False,
            max_new_tokens=n,
        )
        return list(out[0, len(context) :].tolist())


@pytest.fixture(scope="session")
def plain() -> Callable[[Path], Plain]:
    """``plain(folder)``: that model without the engine, loaded once."""
    loaded: dict[Path, Plain] = {}

    def load(folder: Path) -> Plain:
        if folder not in loaded:
            loaded[folder] = Plain(folder)
        return loaded[folder]

    return load
