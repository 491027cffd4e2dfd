"""What a call generates, and where it ends: the end of text, the stop string, the token limit, the context limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from atts_runtime.engines.base import EngineError, Generated, Piece
from atts_runtime.engines.sampling import stream

PROMPTS = [
    "37 (a)+45\n\n",
    "99 (a)-10 (b)-10 (c)-10 (d)-10\n\n",
    "12 (a)+34 (b)+56 (c)+78\n\n",
    "5\n\n",
    "50 (a)-25 (b)+75\n\n",
]


def test_greedy_text_is_that_of_plain_generate_token_for_token(
    serve: Any, plain: Any, tiny_target: Path, tiny_draft: Path
) -> None:
    for folder in (tiny_target, tiny_draft):
        reference = plain(folder)

        async def scenario(client: Any) -> list[Generated]:
            calls = (client.generate(i, prompt=p, n=20 + i, temperature=0.0) for i, p in enumerate(PROMPTS))
            return list(await asyncio.gather(*calls))

        for i, (prompt, result) in enumerate(zip(PROMPTS, serve(scenario, folder), strict=True)):
            expected = reference.greedy(reference.prompt(prompt), 20 + i)
            assert list(result.piece.ids) == expected
            assert result.piece.text == reference.decode(expected)


def test_greedy_text_in_several_calls_is_that_of_one(serve: Any, plain: Any, tiny_target: Path) -> None:
    async def scenario(client: Any) -> list[int]:
        pieces: list[Piece] = []
        for n in (1, 7, 2, 10):
            pieces.append((await client.generate(0, *pieces, n=n, temperature=0.0)).piece)
        return [i for piece in pieces for i in piece.ids]

    reference = plain(tiny_target)
    assert serve(scenario, tiny_target) == reference.greedy(reference.prompt(), 20)


def test_sampled_text_inverts_the_plain_models_distribution(serve: Any, plain: Any, tiny_ending: Path) -> None:
    """Each token is the smallest id whose cumulative probability exceeds the stream's next uniform."""
    temperature = 0.8

    async def scenario(client: Any) -> list[Generated]:
        return [await client.generate(i, n=25, temperature=temperature, seed=(4, i)) for i in range(8)]

    reference = plain(tiny_ending)
    results = serve(scenario, tiny_ending)
    for i, result in enumerate(results):
        context, drawn = reference.prompt(), []
        for u in stream((4, i), 25):
            p = (reference.logits(context)[-1].double() / temperature).softmax(-1)
            drawn.append(int(np.searchsorted(p.cumsum(0).numpy(), u, side="right")))
            context.append(drawn[-1])
            if drawn[-1] == reference.eos:
                break
        assert result.piece.eos == (drawn[-1] == reference.eos)
        assert list(result.piece.ids) == [token for token in drawn if token != reference.eos]
        assert result.usage.tokens_new == len(drawn)
    assert {result.piece.eos for result in results} == {True, False}


def test_a_chain_goes_on_after_another_models_end_of_text(
    serve: Any, plain: Any, tiny_target: Path, tiny_draft: Path
) -> None:
    """The end is no part of the text that follows."""

    async def scenario(draft: Any, target: Any) -> tuple[Piece, Piece]:
        ended = Piece("82", tuple(draft.worker.lm.encode("82")), draft.worker.lm.vocab, eos=True)
        return ended, (await target.generate(0, ended, n=9, temperature=0.0)).piece

    _, piece = serve(scenario, tiny_draft, tiny_target)
    reference = plain(tiny_target)
    assert list(piece.ids) == reference.greedy(reference.prompt() + reference.encode("82"), 9)


@pytest.mark.parametrize("n", [1, 2, 13])
def test_no_more_than_max_tokens_are_generated(serve: Any, tiny_target: Path, n: int) -> None:
    async def scenario(client: Any) -> Generated:
        result: Generated = await client.generate(0, n=n)
        return result

    result = serve(scenario, tiny_target)
    assert len(result.piece.ids) == n == result.usage.tokens_new
    assert not result.piece.eos
    assert not result.full


def test_text_ends_with_the_token_that_completes_the_stop_string(serve: Any, plain: Any, tiny_target: Path) -> None:
    """Inside a token or across several, wherever in the text it is."""
    reference = plain(tiny_target)
    n = 40

    async def scenario(client: Any) -> tuple[Piece, list[tuple[str, Piece]]]:
        whole = (await client.generate(0, n=n)).piece
        stops = sorted({whole.text[i : i + size] for size in (1, 2, 3, 5, 9) for i in range(0, len(whole.text), 11)})
        stops += ["boxed", "never"]
        stopped = await asyncio.gather(*(client.generate(0, n=n, stop=stop) for stop in stops))
        return whole, [(stop, result.piece) for stop, result in zip(stops, stopped, strict=True)]

    whole, stopped = serve(scenario, tiny_target)
    texts = [reference.decode(whole.ids[: i + 1]) for i in range(n)]
    lengths = set()
    for stop, piece in stopped:
        end = next((i + 1 for i, text in enumerate(texts) if stop in text), n)
        assert piece.ids == whole.ids[:end], stop
        assert piece.text == texts[end - 1]
        lengths.add(end)
    assert len(lengths) > 5
    assert any(not piece.text.endswith(stop) for stop, piece in stopped if stop in piece.text)  # inside a token


def test_generation_stops_where_the_context_is_full(
    serve: Any, tiny_target: Path, variant: Callable[..., Path]
) -> None:
    folder = variant(tiny_target, max_position_embeddings=32)

    async def scenario(client: Any) -> None:
        prompt_tokens = client.engine.prompt_tokens(PROMPTS[0])
        room = 32 - prompt_tokens
        assert client.engine.max_context_tokens == 32
        first = await client.generate(0, prompt=PROMPTS[0], n=100)
        assert first.full
        assert len(first.piece.ids) == room
        exact = await client.generate(1, prompt=PROMPTS[0], n=room)
        assert exact.full
        short = await client.generate(2, prompt=PROMPTS[0], n=room - 1)
        assert not short.full
        after = await client.generate(0, first.piece, prompt=PROMPTS[0], n=5)
        assert after.full
        assert after.piece.ids == ()
        scored = await client.score(0, first.piece, prompt=PROMPTS[0])
        assert scored.usage.tokens_new == room
        with pytest.raises(EngineError, match="exceeds"):
            await client.score(0, first.piece, short.piece, prompt=PROMPTS[0])

    serve(scenario, folder)


def test_a_prompt_that_leaves_no_room_is_an_error(serve: Any, tiny_target: Path, variant: Callable[..., Path]) -> None:
    folder = variant(tiny_target, max_position_embeddings=32)

    async def scenario(client: Any) -> None:
        piece = (await client.generate(0, n=2)).piece
        for prompt in (PROMPTS[0] * 20, PROMPTS[0] * 4):
            with pytest.raises(EngineError, match=r"prompt .* 32"):
                await client.generate(1, prompt=prompt)
            with pytest.raises(EngineError, match=r"prompt .* 32"):
                await client.score(1, piece, prompt=prompt)
        await client.generate(2)

    serve(scenario, folder)


def test_positions_of_padding_stay_inside_the_context(
    tmp_path: Path, serve: Any, plain: Any, tiny_target: Path
) -> None:
    """A model with a table of positions has none beyond its limit to give to padding."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_target)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=30,
        n_embd=32,
        n_layer=2,
        n_head=1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    reference = plain(tmp_path / "gpt2")
    room = 30 - len(reference.prompt())
    ids = reference.encode("82 (b)-28: 2-8=4' 8-2-1=5")[:room]
    assert len(ids) == room

    async def scenario(client: Any) -> float:
        ell: float = (await client.score(0, Piece("", tuple(ids), client.worker.lm.vocab))).ell
        return ell

    assert serve(scenario, tmp_path / "gpt2") == pytest.approx(reference.nll(reference.prompt(), ids), abs=1e-5)


def test_leaving_out_the_last_segment_gives_what_a_fresh_chain_gives(serve: Any, plain: Any, tiny_target: Path) -> None:
    """A takeover that replaces the segment, after the segment was scored, generated, or both."""

    async def scenario(client: Any) -> None:
        first = (await client.generate(9, n=10)).piece
        rejected = (await client.generate(9, first, n=15, seed=(1,))).piece
        fresh = (await client.generate(8, first, n=12, seed=(2,))).piece
        fresh_start = (await client.generate(7, n=12, seed=(3,))).piece
        await client.score(1, first)
        await client.score(1, first, rejected)
        assert (await client.generate(1, first, n=12, seed=(2,))).piece == fresh
        assert (await client.generate(9, first, n=12, seed=(2,))).piece == fresh
        assert (await client.generate(9, n=12, seed=(3,))).piece == fresh_start
        ell = (await client.score(1, first, fresh)).ell
        context = reference.prompt() + list(first.ids)
        assert ell == pytest.approx(reference.nll(context, fresh.ids), abs=1e-5)

    reference = plain(tiny_target)
    serve(scenario, tiny_target)
