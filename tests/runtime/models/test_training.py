"""The training script: what it teaches, and that a seed fixes what comes out."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.models.batches import batches
from atts_runtime.models.corpus import Harvest, mixed, slip, solution, synthetic
from atts_runtime.models.growth import grow
from atts_runtime.models.harvest import read_harvest, write_harvest
from atts_runtime.models.tokenizer import build_tokenizer
from atts_runtime.models.train import Phase, Shape, build_model, fit, load, save
from atts_runtime.tasks.arithmetic import PARAGRAPH, WAIT, Sum, questions

TINY = Shape(layers=2, width=32, heads=1, ffn=32)
SHORT = Phase(tokens=6_000, lr=3e-3, batch=4, seed=7, first_weight=2.0, detect=0.5)


def trained() -> dict[str, torch.Tensor]:
    torch.manual_seed(SHORT.seed)
    model = build_model(TINY)
    fit(model, synthetic(SHORT.seed), SHORT, Path("/dev/null"))
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
            expected = next(right)
            assert part.text == WAIT * corrects + expected
            assert before.instead_of == (expected if corrects else None)
    assert next(right, None) is None


def test_after_a_mere_repetition_the_solution_goes_on() -> None:
    question = next(questions(1, held_out=False))
    first, second = question.paragraphs[:2]
    parts = solution(random.Random(1), question, 0.0, {1: WAIT + first})
    assert [part.text for part in parts[1:4]] == [first, WAIT + first, second]
    assert [part.learned for part in parts[1:4]] == [True, False, True]
    assert parts[2].instead_of is None


def wrong_digit(right: str) -> str:
    """The paragraph with another last digit."""
    step = right.removesuffix(PARAGRAPH)
    return step[:-1] + str((int(step[-1]) + 1) % 10) + PARAGRAPH


@pytest.mark.parametrize(
    ("spoil", "marked"),
    [
        (wrong_digit, 2),  # the digit and the blank line after it
        (lambda right: WAIT + wrong_digit(right), 2),
        (lambda right: right.removesuffix(PARAGRAPH), 1),  # merely breaks off: its last token
        (lambda right: "7" + right, None),  # wrong from the first token on
    ],
)
def test_loss_weights_and_wrong_marks_stand_where_they_belong(spoil: Callable[[str], str], marked: int | None) -> None:
    """The first token of every right paragraph weighs more; marks run from the first wrong token to the correction."""
    question = Sum(35, (20, -10, 41))
    bad = spoil(question.paragraphs[0])
    tokenizer = build_tokenizer()
    parts = solution(random.Random(1), question, 0.0, {0: bad})
    batch = next(batches(iter([parts] * 16), 1, first_weight=8.0))
    ids, weights, wrong = batch.ids[0].tolist(), batch.weights[0].tolist(), batch.wrong[0].tolist()
    length = len(tokenizer.encode(bad, add_special_tokens=False).ids)
    start = 1 + len(tokenizer.encode(question.prompt, add_special_tokens=False).ids)
    end = start + length
    assert ids[end] == tokenizer.token_to_id(WAIT)
    assert weights[end] == 8.0
    assert weights.count(8.0) == len(question.paragraphs)
    assert not any(weights[:end])
    assert all(weights[end:])
    assert [i for i, mark in enumerate(wrong) if mark] == list(range(end - (marked or length), end))
    assert bool(batch.real.all())


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
    with torch.no_grad():
        for name, weight in seedling.named_parameters():
            weight.normal_(1.0 if "norm" in name else 0.0, 0.3)
    grown = grow(seedling, build_model(Shape(layers=5, width=64, heads=2, ffn=80)), (0, 2)).eval()
    ids = torch.randint(4, 30, (2, 40))
    with torch.inference_mode():
        torch.testing.assert_close(grown(ids).logits, seedling(ids).logits, rtol=1e-3, atol=1e-3)


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
