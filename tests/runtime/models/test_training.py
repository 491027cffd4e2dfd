"""The training script: what it teaches, and that a seed fixes what comes out."""

from __future__ import annotations

import random
from itertools import islice, pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.models.corpus import Harvest, mixed, slip, solution, synthetic
from atts_runtime.models.tokenizer import build_tokenizer
from atts_runtime.models.train import Recipe, build_model, fit, grow, load, read_harvest, save, write_harvest
from atts_runtime.tasks.arithmetic import WAIT, questions

TINY = Recipe(layers=2, width=32, heads=1, kv_heads=1, ffn=32, tokens=6_000, lr=3e-3, batch=4, seed=7)


def trained() -> dict[str, torch.Tensor]:
    torch.manual_seed(TINY.seed)
    model = build_model(TINY)
    fit(model, synthetic(TINY.seed), TINY, Path("/dev/null"))
    return model.state_dict()


@given(st.integers(0, 10_000))
def test_only_right_paragraphs_are_learned_and_every_wrong_one_is_followed_by_its_correction(seed: int) -> None:
    question = next(questions(seed, held_out=False))
    parts = solution(random.Random(seed), question, wrong_rate=0.5)
    right = iter(question.paragraphs)
    assert parts[0].text == question.prompt
    assert not parts[0].learned
    for before, part in pairwise(parts):
        if part.learned:
            corrects = before is not parts[0] and not before.learned
            assert part.text == WAIT * corrects + next(right)
    assert next(right, None) is None


@given(st.integers(0, 10_000))
def test_training_text_has_no_word_that_the_tokenizer_lacks(seed: int) -> None:
    tokenizer = build_tokenizer()
    rng, question = random.Random(seed), next(questions(seed, held_out=False))
    for step in range(len(question.paragraphs)):
        text = slip(rng, question, step)
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text


def test_training_never_shows_a_held_out_question() -> None:
    item = Harvest(next(questions(1, held_out=False)), {0: "wrong"})
    prompts = {parts[0].text for parts in islice(mixed(3, [item], 0.5), 400)}
    assert prompts.isdisjoint(question.prompt for question in islice(questions(4), 50))


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second = trained(), trained()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_grown_model_computes_what_its_seedling_does() -> None:
    torch.manual_seed(1)
    seedling = build_model(TINY).eval()
    grown = grow(seedling, Recipe(**{**{n: getattr(TINY, n) for n in TINY.__slots__}, "layers": 12})).eval()
    ids = torch.randint(4, 30, (2, 40))
    with torch.inference_mode():
        assert torch.equal(grown(ids).logits, seedling(ids).logits)


def test_a_saved_model_comes_back_up_to_float16(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = build_model(TINY)
    save(model, tmp_path / "model")
    back = load(tmp_path / "model").state_dict()
    for name, weight in model.state_dict().items():
        assert back[name] == pytest.approx(weight, rel=1e-3, abs=1e-6)


def test_a_harvest_survives_its_file(tmp_path: Path) -> None:
    items = [Harvest(question, {1: "wrong\n\n"}) for question in islice(questions(5, held_out=False), 3)]
    write_harvest(items, tmp_path / "harvest.jsonl")
    assert read_harvest(tmp_path / "harvest.jsonl") == items
