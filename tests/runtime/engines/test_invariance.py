"""On CPU a chain's text, ids and scores are the same to the last bit, whoever shares its batches."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from atts_runtime.engines.base import Piece

CROWD = 20
# Sizes that the engine keeps to, said here again: were it to leave them, a test must fail and not be skipped.
ROWS, NEW, TIMES = 4, 4, [*range(16, 193, 16), *range(384, 513, 16)]
PROMPTS = [
    "37 (a)+45 (b)-28\n\n",
    "99 (a)-10\n\n",
    "12 (a)+34 (b)+56 (c)+78 (d)-11 (e)-12\n\n",
]
LONG = ["5 (a)+5 " * n + "\n\n" for n in (20, 36, 42, 60)]  # 6 tokens each: around the lengths that sum otherwise


def kernels_are_row_invariant() -> bool:
    """Whether this machine's matrix and attention kernels give a row the same bits in batches of any aligned size."""
    generator = torch.Generator().manual_seed(0)

    def random_tensor(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    sizes = [ROWS * k for k in (1, 2, 3, 4, 5, 6, 7, 16)] + [ROWS * NEW * k for k in (1, 5, 30)]
    for n_in, n_out in [(64, 64), (64, 32), (64, 128), (128, 64), (64, 42)]:
        rows, weight = random_tensor(max(sizes), n_in), random_tensor(n_out, n_in)
        whole = F.linear(rows, weight)
        if any(not torch.equal(F.linear(rows[:n], weight), whole[:n]) for n in sizes):
            return False
    for new in (1, NEW, 5 * NEW):
        longest = max(TIMES)
        q, k, v = random_tensor(8, 2, new, 32), random_tensor(8, 2, longest, 32), random_tensor(8, 2, longest, 32)
        seen = [5 + i for i in range(8)]

        def attend(rows: int, time: int, q: Any = q, k: Any = k, v: Any = v, seen: Any = seen) -> torch.Tensor:
            mask = torch.arange(time) < torch.tensor(seen[:rows])[:, None, None, None]
            mask = mask.expand(rows, 1, q.shape[2], time)
            return F.scaled_dot_product_attention(q[:rows], k[:rows, :, :time], v[:rows, :, :time], attn_mask=mask)

        whole = attend(8, longest)
        for time in TIMES:
            if not all(torch.equal(attend(rows, time), whole[:rows]) for rows in (4, 8)):
                return False
    return True


@pytest.fixture(scope="module")
def row_invariant() -> None:
    if not kernels_are_row_invariant():
        pytest.skip("this machine's torch kernels give a row other bits in a batch of another size")


async def story(client: Any, chain: int) -> list[Any]:
    """Three turns: text written, scored, written on; then the last segment again from its beginning."""
    prompt = PROMPTS[chain % len(PROMPTS)]
    first = (await client.generate(chain, prompt=prompt, n=9 + chain, seed=(chain, 0))).piece
    ell = (await client.score(chain, first, prompt=prompt)).ell
    second = (await client.generate(chain, first, prompt=prompt, n=14, temperature=0.7, seed=(chain, 1))).piece
    # On the chain that wrote it and on another: a context that decode steps computed, and one that an append did.
    foreign = Piece("82 = 54", (), "another")
    ells = [ell, *[(await client.score(c, first, second, foreign, prompt=prompt)).ell for c in (chain, chain + 100)]]
    third = (await client.generate(chain, first, prompt=prompt, n=7, seed=(chain, 2))).piece
    return [ells, first.text, first.ids, second.text, second.ids, third.text, third.ids]


async def passer_by(client: Any, chain: int, over: asyncio.Event) -> None:
    """Keeps starting chains of all lengths, writes and scores, cancels one in five, until the others are done."""
    rng = random.Random(chain)
    while not over.is_set():
        prompt, n = rng.choice(LONG if rng.random() < 0.1 else PROMPTS), rng.randint(1, 30)
        call = asyncio.create_task(client.generate(chain, prompt=prompt, n=n, seed=(rng.randrange(1000),)))
        if rng.random() < 0.2:
            await asyncio.sleep(0.01)
            call.cancel()
            await asyncio.wait([call])
        else:
            await client.score(chain, (await call).piece, prompt=prompt)
        client.engine.release((0, chain))
        await asyncio.sleep(0)


@pytest.mark.usefixtures("row_invariant")
def test_a_chain_alone_and_a_chain_in_a_crowd_are_the_same_to_the_last_bit(serve: Any, tiny_target: Path) -> None:
    watched = [0, 1, 2]

    async def crowd(client: Any) -> list[list[Any]]:
        over = asyncio.Event()
        others = [asyncio.create_task(passer_by(client, 1000 + i, over)) for i in range(CROWD)]
        while not client.worker.stats.decode_steps:
            await asyncio.sleep(0.001)
        stories = await asyncio.gather(*(story(client, chain) for chain in watched))
        over.set()
        await asyncio.gather(*others)
        assert max(len(p.fed) for p in client.passes if not p.append) > 10
        return list(stories)

    together = serve(crowd, tiny_target)
    for chain, crowded in zip(watched, together, strict=True):
        assert serve(lambda client, chain=chain: story(client, chain), tiny_target) == crowded


@pytest.mark.usefixtures("row_invariant")
def test_a_repeated_crowd_repeats_to_the_last_bit(serve: Any, tiny_target: Path) -> None:
    async def crowd(client: Any, order: list[int]) -> dict[int, list[Any]]:
        stories = await asyncio.gather(*(story(client, chain) for chain in order))
        return dict(zip(order, stories, strict=True))

    order = list(range(12))
    forth = serve(lambda client: crowd(client, order), tiny_target, max_rows=8)
    back = serve(lambda client: crowd(client, order[::-1]), tiny_target, max_rows=5)
    assert forth == back


@pytest.mark.usefixtures("row_invariant")
@pytest.mark.parametrize("prompt", LONG, ids=len)
def test_a_neighbours_length_changes_no_bit(serve: Any, tiny_target: Path, prompt: str) -> None:
    """The longest row sets the length that attention sums over for all."""

    async def written(client: Any) -> list[Any]:
        piece = (await client.generate(1, prompt=prompt, n=24)).piece
        return [piece, (await client.score(1, piece, Piece("82 = 54", (), "another"), prompt=prompt)).ell]

    async def scenario(client: Any) -> None:
        alone = await written(client)
        for n in (190, 230, 300, 370, 450, 520, 730, 800):
            await client.engine.reset()
            client.passes.clear()
            neighbour = "7" * (n - 2) + "\n\n"  # a token a digit
            beside, _ = await client.together(written(client), client.generate(2, prompt=neighbour, n=40))
            assert beside == alone, n
            assert any(len(p.fed) == 2 for p in client.passes if not p.append)

    serve(scenario, tiny_target)


@pytest.mark.usefixtures("row_invariant")
@pytest.mark.parametrize("length", [5, 150, 300, 480])
def test_a_chain_that_grows_while_rows_of_all_lengths_join_is_the_chain_alone(
    serve: Any, tiny_target: Path, length: int
) -> None:
    """It outgrows its group of rows, whose room and whose neighbours change under it all the while."""

    async def growing(client: Any) -> Piece:
        piece: Piece = (await client.generate(0, prompt="7" * length + "\n\n", n=260)).piece
        return piece

    async def crowd(client: Any) -> Piece:
        longest = asyncio.create_task(growing(client))
        others = []
        for i in range(30):
            steps = client.worker.stats.decode_steps
            while client.worker.stats.decode_steps < steps + 8 and not longest.done():
                await asyncio.sleep(0)
            others.append(asyncio.create_task(client.generate(1 + i, prompt="8" * (20 + 17 * i) + "\n\n", n=90)))
        await asyncio.gather(*others)
        assert max(len(p.fed) for p in client.passes if not p.append) > 8
        return await longest

    assert serve(crowd, tiny_target) == serve(growing, tiny_target)
