"""The counted FLOPs are those that torch counts, the counted bytes those of the tensors that a step touches."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from atts_runtime.engines.causal_lm import CausalLM
from atts_runtime.models import evaluate
from atts_runtime.profiler import Counts, Experts, Fed, ModelSpec, Rates, decode, expected_experts, prefill, score, step
from tests.runtime.profiler.models import DENSE, MIXTURES, built, configs, counted

# By default a step of the smallest models spends its time on handing work to threads.
pytestmark = pytest.mark.usefixtures("one_thread")
examples = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SPEC = ModelSpec("m", 3, 8, 4, 2, 5, 7, 11, tied=False, bytes_per_weight=2, bytes_per_kv_element=2)
MIXTURE = replace(SPEC, ffn=None, experts=Experts(layers=3, experts=5, per_token=2, ffn=6))


@pytest.mark.parametrize("make", sorted(DENSE | MIXTURES))
@given(st.data(), st.integers(1, 9), st.integers(1, 20), st.integers(1, 3))
@settings(examples, max_examples=4)
def test_prefill_scoring_and_decoding_count_what_torch_counts(
    make: str, data: st.DataObject, new: int, cached: int, rows: int
) -> None:
    model, spec = built(data.draw(configs({make: (DENSE | MIXTURES)[make]})))
    for fed in (prefill(new), score(new, cached), decode(cached)):
        flops, _ = counted(model, fed, rows)
        assert step(spec, [fed] * rows).flops == flops


@pytest.mark.parametrize("role", ["draft", "target"])
def test_the_bundled_models_decode_at_the_flops_of_their_card(role: str) -> None:
    folder = Path(evaluate.__file__).parent / role
    spec = ModelSpec.from_config(folder)
    assert step(spec, [decode(evaluate._CONTEXT_TOKENS)]).flops == evaluate.decode_flops(folder)


@pytest.mark.parametrize("every", [True, False])
def test_the_embedded_engine_executes_the_padded_batch(tiny_target: Path, every: bool) -> None:
    lm = CausalLM(str(tiny_target), device="cpu")
    spec = ModelSpec.from_config(lm.model.config, bytes_per_weight=4, bytes_per_kv_element=4)
    starts = [37, 5, 20]
    new = [6, 3, 1] if every else [1, 1, 1]
    groups = [(lm.buffer(192), 2, 192), (lm.buffer(384), 1, 384)]
    for buffer, rows, time in groups:
        buffer.reserve(rows, time)
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=SDPA) as counter:
        if every:
            _, (tokens, pairs, _) = lm.append_pass(lm.buffer(), [[7] * n for n in new], starts)
        else:
            _, (tokens, pairs, found) = lm.decode_pass(groups, [7] * 3, starts)
    executed = Rates(spec).flops(tokens, pairs, tokens)
    assert executed == counter.get_total_flops()
    assert every or (pairs, found) == (2 * 192 + 384, 2)
    needed = step(spec, [score(n, s) for n, s in zip(new, starts, strict=True)])
    assert needed.flops < executed


def sdpa_flops(query: Any, key: Any, value: Any, *args: Any, out_val: Any = None, **kwargs: Any) -> int:
    """Two products over all pairs: stock torch counts CPU attention as nothing."""
    rows, heads, new, dim = query
    return 2 * rows * heads * new * key[2] * (dim + value[3])


SDPA = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flops}


def test_a_ragged_batch_costs_what_its_sequences_cost_but_reads_the_weights_once() -> None:
    batch = [prefill(5), score(3, 8), decode(20)]
    whole, alone = step(SPEC, batch), sum((step(SPEC, [fed]) for fed in batch), Counts())
    assert whole.flops == alone.flops
    assert whole.causal_flops == alone.causal_flops
    assert whole.kv_read_bytes == alone.kv_read_bytes == SPEC.kv_bytes_per_token * (5 + 11 + 21)
    assert whole.kv_written_bytes == alone.kv_written_bytes == SPEC.kv_bytes_per_token * 9
    shared = 2 * (SPEC.common_parameters + SPEC.head_parameters)
    assert alone.weight_bytes - whole.weight_bytes == 2 * shared


@given(st.integers(1, 30), st.integers(0, 30))
def test_causal_attention_counts_each_token_with_itself_and_all_before_it(new: int, cached: int) -> None:
    pairs = sum(cached + i + 1 for i in range(new))
    counts = step(SPEC, [score(new, cached)])
    assert counts.attention_causal_flops == 4 * SPEC.layers * SPEC.heads * SPEC.head_dim * pairs
    assert counts.attention_flops == 4 * SPEC.layers * SPEC.heads * SPEC.head_dim * new * (cached + new)
    assert counts.flops - counts.causal_flops == counts.attention_flops - counts.attention_causal_flops


@given(st.integers(0, 200))
def test_decoding_costs_the_same_by_either_convention(cached: int) -> None:
    counts = step(SPEC, [decode(cached)])
    assert counts.attention_flops == counts.attention_causal_flops


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 9))
def test_a_prompt_fed_in_chunks_costs_what_it_costs_whole_by_the_causal_convention(
    chunks: list[int], cached: int
) -> None:
    total, at = Counts(), cached
    for n in chunks:
        total += step(SPEC, [Fed(n, at, 0)])
        at += n
    whole = step(SPEC, [Fed(sum(chunks), cached, 0)])
    assert total.causal_flops == whole.causal_flops
    assert total.flops <= whole.flops
    assert total.kv_written_bytes == whole.kv_written_bytes


@given(configs(DENSE), st.sampled_from([torch.float32, torch.bfloat16]), st.integers(1, 6), st.integers(1, 6))
@examples
def test_bytes_are_those_of_the_models_tensors_and_of_its_cache(
    config: Any, dtype: torch.dtype, new: int, cached: int
) -> None:
    model, spec = built(config, dtype)
    _, cache = counted(model, prefill(new, cached), 2)
    counts = step(spec, [prefill(new, cached)] * 2)
    table = model.get_input_embeddings().weight
    rows = 2 * new * table[0].nbytes
    read = sum(p.nbytes for p in model.parameters()) - (0 if spec.tied else table.nbytes)
    assert counts.weight_bytes == read + rows
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert counts.kv_read_bytes == held
    assert counts.kv_written_bytes * (cached + new) == held * new


def test_without_logits_the_head_is_not_read() -> None:
    some, none = step(SPEC, [Fed(4, 0, 1)]), step(SPEC, [Fed(4, 0, 0)])
    assert some.weight_bytes - none.weight_bytes == 2 * SPEC.head_parameters
    assert none.logits_flops == 0


@pytest.mark.parametrize(("experts", "per_token", "tokens"), [(4, 2, 1), (4, 2, 3), (5, 1, 3), (5, 3, 2), (3, 3, 2)])
def test_expected_experts_are_the_mean_over_all_choices(experts: int, per_token: int, tokens: int) -> None:
    choices = list(combinations(range(experts), per_token))
    touched = [len(set().union(*drawn)) for drawn in product(choices, repeat=tokens)]
    assert expected_experts(experts, per_token, tokens) == pytest.approx(sum(touched) / len(touched))


def test_one_token_reads_the_active_weights_of_a_mixture_and_many_read_all() -> None:
    def trunk(tokens: int) -> float:
        rows = tokens * MIXTURE.width
        return step(MIXTURE, [Fed(tokens, 0, 0)]).weight_bytes / MIXTURE.bytes_per_weight - rows

    ends = MIXTURE.embedding_parameters + MIXTURE.head_parameters
    assert trunk(1) == pytest.approx(MIXTURE.active_parameters - ends)
    assert trunk(1000) == pytest.approx(MIXTURE.parameters - ends)
    assert trunk(1) < trunk(2) < trunk(3)


@given(configs(MIXTURES), st.integers(1, 4))
@examples
def test_a_mixtures_experts_are_read_as_often_as_expected(config: Any, new: int) -> None:
    """Over routers with random weights the mean is near; here the bounds: one token's experts, and all of them."""
    model, spec = built(config)
    table = spec.embedding_parameters
    counts = step(spec, [prefill(new)])
    weights = counts.weight_bytes / spec.bytes_per_weight - new * spec.width
    floor = spec.active_parameters - (0 if spec.tied else table)
    ceiling = sum(p.numel() for p in model.parameters()) - (0 if spec.tied else table)
    assert floor * (1 - 1e-12) <= weights <= ceiling * (1 + 1e-12)


def test_no_sequence_is_no_step() -> None:
    assert step(SPEC, []) == Counts()
    assert step(SPEC, [decode(3)]) + Counts() == step(SPEC, [decode(3)])


@pytest.mark.parametrize("fed", [(0, 3, 0), (-1, 3, 0), (2, -1, 1), (2, 0, 3), (2, 0, -1)])
def test_impossible_steps_are_refused(fed: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="not a step"):
        Fed(*fed)


def test_the_rule_of_two_flops_a_parameter_is_off_on_small_models() -> None:
    """Why nothing here says 2 * P * T: it counts the embedding, and no attention."""
    folder = Path(evaluate.__file__).parent / "target"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    spec = ModelSpec.from_config(folder)
    exact, _ = counted(model, decode(128), 1)
    assert abs(2 * spec.parameters / exact - 1) > 0.05
