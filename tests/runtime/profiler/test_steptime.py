"""A step's seconds follow its shape: the profiler's counts, closed forms equal to steps, flags outside the range."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atts_runtime.errors import InputError
from atts_runtime.profiler import ModelSpec
from atts_runtime.profiler import counts as counted
from atts_runtime.profiler.analytic import SHIPPED, analytic_model
from atts_runtime.profiler.counts import Fed
from atts_runtime.profiler.grid import Sample, engine_padding, grid_of
from atts_runtime.profiler.hardware import Peak, shipped
from atts_runtime.profiler.provenance import KINDS, Number
from atts_runtime.profiler.stepfit import fit_phase
from atts_runtime.profiler.steptime import (
    RAGGED,
    OutOfRange,
    Padding,
    Phase,
    PhaseCosts,
    Range,
    StepModel,
    StepShape,
)

MODELS = Path(__file__).parents[3] / "profiles" / "models"
TARGET = ModelSpec.from_toml(MODELS / "bundled-target.toml")
QWQ = ModelSpec.from_toml(MODELS / "qwq-32b.toml")
APPEND = PhaseCosts(0.8, 0.7, 1.4e-3, 1.9e-4, mfu_attention=0.5, kv_copies=4)
DECODE = PhaseCosts(0.5, 0.6, 1.1e-3, 4e-5)
PADDED = Padding(True, 4, 4, (16, 32, 64))
EMBEDDED = StepModel(TARGET, 9e10, 2e10, APPEND, DECODE, PADDED)
ALONE = replace(EMBEDDED, padding=replace(PADDED, row_stops=(24, 64)))
PAGED = replace(EMBEDDED, padding=RAGGED)
OVERLAPPED = replace(PAGED, decode=replace(DECODE, overlapped=True))
CACHED = replace(DECODE, cache_bytes=1e7, eta_beyond=0.3)


def exact(number: float) -> Number:
    return Number(number, "x", "measured", "a test")


PEAK = Peak("float32", 1, exact(9e10), exact(2e10))

feds = st.builds(lambda n, s, r: Fed(n, s, min(n, r)), st.integers(1, 60), st.integers(0, 900), st.integers(0, 60))


@given(st.lists(feds, min_size=1, max_size=9))
def test_an_engine_that_pads_nothing_does_the_work_that_the_profiler_counts(batch: list[Fed]) -> None:
    work, counts = replace(PAGED, append=DECODE).work("append", StepShape.of(batch)), counted.step(TARGET, batch)
    assert work.linear_flops == counts.linear_flops + counts.logits_flops
    assert work.attention_flops == counts.attention_causal_flops
    assert work.bytes == pytest.approx(counts.weight_bytes + counts.kv_read_bytes, rel=1e-12)


@given(st.integers(1, 9), st.integers(1, 60), st.integers(0, 900))
def test_pairs_need_not_be_told_where_rows_are_alike(rows: int, new: int, cached: int) -> None:
    shape = StepShape.of([Fed(new, cached, new)] * rows)
    assert PAGED.work("append", shape._replace(pairs=None)) == PAGED.work("append", shape)


@given(st.lists(feds, min_size=1, max_size=9))
def test_padding_never_makes_a_step_cheaper_nor_a_rounded_batch_dearer(batch: list[Fed]) -> None:
    shape = StepShape.of(batch)
    assert EMBEDDED.seconds("append", shape) >= PAGED.seconds("append", shape) * (1 - 1e-12)
    new = -(-shape.longest_new // 4) * 4
    kept = PADDED.kept(shape.longest_kept + new - shape.longest_new)
    assert kept >= shape.longest_kept
    full = shape._replace(longest_new=new, longest_kept=kept)
    assert EMBEDDED.seconds("append", full) == pytest.approx(EMBEDDED.seconds("append", shape), rel=1e-12)


MODELS_OF = {
    "padded": EMBEDDED,
    "paged": PAGED,
    "overlapped": OVERLAPPED,
    "cached": replace(PAGED, decode=CACHED),
    "cached and overlapped": replace(PAGED, decode=replace(CACHED, overlapped=True)),
    "cached and padded": replace(EMBEDDED, decode=CACHED),
    "rows alone": ALONE,
    "rows alone, cached and overlapped": replace(ALONE, decode=replace(CACHED, overlapped=True)),
}


@pytest.mark.parametrize("model", MODELS_OF.values(), ids=MODELS_OF)
@given(st.integers(1, 64), st.integers(1, 1500), st.data())
def test_decode_lines_are_the_steps_until_the_block_ends(
    model: StepModel, rows: int, longest: int, data: st.DataObject
) -> None:
    lines = model.decode_lines(rows, longest)
    later = data.draw(st.integers(longest, lines.until or longest + 500))
    kept = data.draw(st.integers(later + rows - 1, later * rows))
    shape = StepShape(rows, rows, 1, kept, later, rows, kept, attended=kept)
    assert lines.seconds(kept) == pytest.approx(model.seconds("decode", shape), rel=1e-12)
    if lines.until is not None:
        assert model.decode_seconds(rows, kept, lines.until + 1) > lines.seconds(kept)


def test_the_engines_padding_is_that_of_its_kv_buffers() -> None:
    from atts_runtime.engines.kv import NEW_ALIGN, ROW_ALIGN, aligned_time, row_time

    for grouped in (False, True):
        padding = engine_padding(groups_rows=grouped)
        assert (padding.rectangular, padding.rows_to, padding.new_to) == (True, ROW_ALIGN, NEW_ALIGN)
        lengths = range(1, 4097)
        assert [padding.kept(n) for n in lengths] == [aligned_time(n) for n in lengths]
        assert [padding.row_kept(n) for n in lengths] == [(row_time if grouped else aligned_time)(n) for n in lengths]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=9))
def test_rows_that_attend_by_themselves_cost_what_they_attend_over(kept: list[int]) -> None:
    rows, attended = len(kept), sum(ALONE.padding.row_kept(length) for length in kept)
    shape = StepShape(rows, rows, 1, sum(kept), max(kept), rows, sum(kept), attended=attended)
    work, longest = ALONE.work("decode", shape), EMBEDDED.work("decode", shape)
    assert work.attention_flops == ALONE._rates.pair_flops * attended
    assert work.linear_flops == longest.linear_flops
    dearer = replace(ALONE, decode=replace(ALONE.decode, group_s=1e-4))
    for groups in (1, 3):
        more = dearer.seconds("decode", shape._replace(groups=groups)) - ALONE.seconds("decode", shape)
        assert more == pytest.approx(1e-4 * (groups - 1), rel=1e-9, abs=1e-12)
    unsaid = ALONE.work("decode", shape._replace(attended=None, kept_tokens=rows * kept[0]))
    assert unsaid.attention_flops == ALONE._rates.pair_flops * rows * ALONE.padding.row_kept(kept[0])


def test_a_step_outside_what_was_measured_is_flagged_and_refused() -> None:
    model = replace(EMBEDDED, ranges={"decode": Range(8, 8, 8 * 128, 128)})
    inside = StepShape(8, 8, 1, 800, 128, 8)
    assert model.cost("decode", inside).inside
    assert model.decode_lines(8, 128).inside
    for outside in (inside._replace(rows=9), inside._replace(longest_kept=129)):
        assert not model.cost("decode", outside).inside
        assert not model.decode_lines(outside.rows, outside.longest_kept).inside
        with pytest.raises(OutOfRange, match="outside what was measured"):
            model.seconds("decode", outside)
    # Eight rows that attend over 192 each are more than was measured, however few tokens they keep.
    assert (
        not replace(model, ranges={"decode": Range(8, 8, 1024, 256)})
        .cost("decode", inside._replace(longest_kept=129))
        .inside
    )


@pytest.mark.parametrize("rows", [1, 4, 16, 64])
def test_bytes_that_no_cache_holds_cost_what_memory_takes_for_them(rows: int) -> None:
    plain, cached = PAGED, replace(PAGED, decode=CACHED)
    for kept in (rows, 200 * rows, 2000 * rows):
        moved = plain.work("decode", StepShape(rows, rows, 1, kept, kept // rows, rows, kept)).bytes
        more = max(0.0, moved - 1e7) / 2e10 * (1 / 0.3 - 1 / 0.6)
        seconds = plain.decode_seconds(rows, kept, kept // rows)
        assert cached.decode_seconds(rows, kept, kept // rows) == pytest.approx(seconds + more, rel=1e-9)


@pytest.mark.parametrize("bad", [{"cache_bytes": 1e6}, {"eta_beyond": 0.2}, {"cache_bytes": 1e6, "eta_beyond": 0.9}])
def test_a_cache_comes_with_a_slower_memory_behind_it(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="beyond a cache"):
        replace(DECODE, **bad)


def test_a_fit_finds_the_cache_that_made_the_steps_and_none_where_there_was_none() -> None:
    points = [point for point in grid_of(64, 1024, 2048).points if point.phase == "decode"]
    made = replace(EMBEDDED, decode=replace(DECODE, cache_bytes=4e7, eta_beyond=0.3))
    for model, cache in ((made, 4e7), (EMBEDDED, None)):
        shapes = [(p.shape(PADDED), p.held_out) for p in points]
        samples = [Sample("decode", shape, model.seconds("decode", shape), 1, held_out) for shape, held_out in shapes]
        fit = fit_phase("decode", samples, TARGET, PEAK, PADDED)
        assert fit.costs.cache_bytes == (cache and pytest.approx(cache, rel=0.2))
        assert fit.costs.eta_beyond == (cache and pytest.approx(0.3, rel=0.2))
        assert fit.held_out.p90 < 0.02


@pytest.mark.parametrize("group_s", [0.0, 3e-4])
def test_a_fit_finds_what_groups_of_rows_cost(group_s: float) -> None:
    padding = engine_padding(groups_rows=True)
    made = replace(EMBEDDED, padding=padding, decode=replace(DECODE, group_s=group_s))
    points = [point for point in grid_of(64, 1024, 2048).points if point.phase == "decode"]
    shapes = [(point.shape(padding), point.held_out) for point in points]
    samples = [Sample("decode", shape, made.seconds("decode", shape), 1, held_out) for shape, held_out in shapes]
    fit = fit_phase("decode", samples, TARGET, PEAK, padding)
    assert fit.costs.group_s == pytest.approx(group_s, rel=0.05, abs=1e-6)
    assert fit.held_out.p90 < 0.01


@pytest.mark.parametrize(
    "bad",
    [{"mfu": 1.01}, {"mfu": 0.0}, {"eta": 1.5}, {"mfu_attention": 2.0}, {"step_s": -1e-9}, {"row_s": float("nan")}],
)
def test_coefficients_beyond_physics_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        replace(APPEND, **bad)


@pytest.mark.parametrize("phase", ["append", "decode"])
def test_a_fit_recovers_the_costs_that_made_the_steps_and_stays_physical_when_they_were_not(phase: Phase) -> None:
    points = [point for point in grid_of(64, 1024, 2048).points if point.phase == phase]

    def samples(factor: float) -> list[Sample]:
        return [
            Sample(phase, p.shape(PADDED), factor * EMBEDDED.seconds(phase, p.shape(PADDED)), 1, p.held_out)
            for p in points
        ]

    fit = fit_phase(phase, samples(1.0), TARGET, PEAK, PADDED)
    made = getattr(EMBEDDED, phase)
    for name in ("mfu", "eta", "step_s", "row_s"):
        assert getattr(fit.costs, name) == pytest.approx(getattr(made, name), rel=1e-3)
    assert fit.held_out.p90 < 1e-5
    assert fit.fitted.points + fit.held_out.points == len(points)
    faster = fit_phase(phase, samples(0.1), TARGET, PEAK, PADDED).costs  # than the device can be
    assert 0 < faster.mfu <= 1
    assert 0 < faster.eta <= 1


def test_disturbed_points_do_not_bend_the_fit() -> None:
    points = [point for point in grid_of(64, 1024, 2048).points if point.phase == "append"]
    noise = np.where(np.random.default_rng(0).random(len(points)) < 0.1, 3.0, 1.0)
    samples = [
        Sample("append", p.shape(PADDED), EMBEDDED.seconds("append", p.shape(PADDED)) * factor, 1, p.held_out)
        for p, factor in zip(points, noise, strict=True)
    ]
    fit = fit_phase("append", samples, TARGET, PEAK, PADDED)
    assert fit.held_out.median < 0.1


def test_points_held_out_lie_in_the_range_and_off_the_grid() -> None:
    points = grid_of(64, 1024, 2048).points
    for phase in ("append", "decode"):
        fitted, held_out = (
            [p.shape(PADDED) for p in points if p.phase == phase and p.held_out is out] for out in (False, True)
        )
        assert not set(fitted) & set(held_out)
        assert not {s.rows for s in fitted} & {s.rows for s in held_out}
        for name in ("rows", "new_tokens", "kept_tokens", "longest_kept"):
            assert max(getattr(s, name) for s in held_out) <= max(getattr(s, name) for s in fitted)


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_gpu_without_a_measured_engine_has_step_times_whose_every_constant_says_its_source(name: str) -> None:
    hardware = shipped()[name]
    model = analytic_model(QWQ, hardware, "bfloat16")
    assert all(stated.kind in KINDS and stated.source for stated in model.provenance.values())
    # One row reads all weights: memory-bound, so at least their bytes over the bandwidth.
    alone = model.decode_seconds(1, 1000, 1000)
    floor = 2 * (QWQ.parameters - QWQ.embedding_parameters) / hardware.peak("bfloat16").bytes_per_s
    assert floor < alone < 1.2 * floor
    four = analytic_model(QWQ, hardware, "bfloat16", tp=4)
    assert alone / 4 < four.decode_seconds(1, 1000, 1000) < alone
    # 64 layers, two all-reduces each: their latency is in every step.
    assert four.decode_seconds(1, 1000, 1000) - alone / 4 > 128 * 20e-6


def test_what_an_analytic_model_lacks_is_named() -> None:
    a100, cpu = shipped()["nvidia-a100-80gb-sxm"], shipped()["amd-epyc-milan"]
    with pytest.raises(InputError, match="no peak of fp8; it has bfloat16, float16, tf32, float32"):
        analytic_model(QWQ, a100, "fp8")
    with pytest.raises(InputError, match="no constants for hardware amd-epyc-milan"):
        analytic_model(QWQ, cpu, "float32")
    with pytest.raises(InputError, match="link_bytes_per_s"):
        analytic_model(QWQ, replace(a100, link_bytes_per_s=None), "bfloat16", tp=2)
