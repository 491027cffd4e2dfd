"""`sample` draws from softmax(logits / T) by inverse transform."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from atts_runtime.engines.sampling import sample, stream

LOGITS = torch.tensor([0.3, -1.2, 2.0, 0.0, -4.0, 1.1, 0.9, -0.5])


def counts(uniforms: list[float], temperature: float) -> np.ndarray:
    n = len(uniforms)
    tokens = sample(LOGITS.expand(n, -1), [temperature] * n, uniforms)
    return np.bincount(tokens, minlength=len(LOGITS))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_follow_the_softmax(temperature: float) -> None:
    n = 20_000
    expected = n * (LOGITS.double() / temperature).softmax(-1).numpy()
    chi_square = ((counts(stream((5,), n).tolist(), temperature) - expected) ** 2 / expected).sum()
    assert chi_square < 24.32  # the 99.9% point at 7 degrees of freedom


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_evenly_spaced_uniforms_give_each_token_its_share_to_within_one(temperature: float) -> None:
    n = 10_000
    expected = n * (LOGITS.double() / temperature).softmax(-1).numpy()
    even = counts([(i + 0.5) / n for i in range(n)], temperature)
    assert np.abs(even - expected).max() <= 1.01  # the margin for cumulative sums in float32


def test_temperature_zero_takes_the_most_likely_token_whatever_the_uniform() -> None:
    uniforms = [0.0, 0.3, 0.999999, 0.5]
    assert sample(LOGITS.expand(4, -1), [0.0] * 4, uniforms) == [2] * 4


def test_rows_keep_their_own_temperature_and_uniform() -> None:
    rows = torch.stack([LOGITS, LOGITS.flip(0), LOGITS, -LOGITS])
    temperatures, uniforms = [0.0, 0.7, 1.3, 0.0], [0.9, 0.2, 0.95, 0.1]
    together = sample(rows, temperatures, uniforms)
    alone = [sample(rows[i : i + 1], temperatures[i : i + 1], uniforms[i : i + 1])[0] for i in range(4)]
    assert together == alone


@pytest.mark.parametrize("vocab", [2, 7, 33, 50_257])
def test_a_uniform_near_one_draws_a_token_of_positive_probability(vocab: int) -> None:
    """Also where it rounds to 1 in float32, where sums round below 1, and where the last ids are impossible."""
    logits = torch.randn(vocab, generator=torch.Generator().manual_seed(1))
    logits[vocab // 2 + 1 :] = -math.inf
    near = [1 - 2.0**-53, 1 - 2.0**-25, 1 - 2.0**-24, float(np.nextafter(np.float32(1), np.float32(0)))]
    tokens = sample(logits.expand(len(near), -1), [1.0] * len(near), near)
    assert all(0 <= token <= vocab // 2 for token in tokens)


def test_a_uniform_of_zero_skips_impossible_tokens() -> None:
    logits = torch.tensor([[-math.inf, -math.inf, 0.0, 0.0]])
    assert sample(logits, [1.0], [0.0]) == [2]


def test_a_stream_is_fixed_by_its_seed_and_a_shorter_one_is_its_beginning() -> None:
    assert stream((1, 2, 3), 10).tolist() == stream((1, 2, 3), 10).tolist()
    assert stream((1, 2, 3), 4).tolist() == stream((1, 2, 3), 10).tolist()[:4]
    assert stream((1, 2, 3), 4).tolist() != stream((1, 3, 2), 4).tolist()
    assert all(0 <= u < 1 for u in stream((0,), 1000))
