"""Runs of decode steps in closed form are the sums of their steps."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atts_runtime.profiler.analytic import analytic_model
from atts_runtime.profiler.engineprofile import shipped_engines
from atts_runtime.profiler.hardware import HardwareProfile, profiles_folder
from atts_runtime.profiler.modelspec import ModelSpec
from atts_runtime.profiler.steptime import StepModel
from atts_sim.affine import AffineCost
from atts_sim.cost import Cost, DecodeLines, DecodeRuns, Phase, StepCost, StepShape

RELATIVE = 1e-12

seconds = st.floats(0, 1e-2)
costs = st.builds(
    AffineCost,
    overhead_s=st.floats(1e-6, 1e-2),
    row_s=seconds,
    token_s=seconds,
    attention_s=st.floats(0, 1e-5),
    weights_s=seconds,
    kept_s=st.floats(0, 1e-5),
    logit_s=seconds,
    block=st.sampled_from([0, 1, 7, 16, 128]),
    padded_s=st.floats(0, 1e-6),
    row_stops=st.sampled_from([(), (192, 384, 512)]),
    group_s=seconds,
)
starts = st.tuples(st.integers(1, 40), st.integers(0, 300)).flatmap(
    lambda rows_longest: st.tuples(
        st.just(rows_longest[0]),
        st.integers(rows_longest[1], rows_longest[0] * rows_longest[1]),
        st.just(rows_longest[1]),
    )
)


GROUPS = 3


def shapes_of(cost: StepCost, rows: int, kept: int, longest: int, steps: int) -> list[StepShape]:
    """A run's steps; with stops `kept` is what they all attend over, and no more than the longest row is known."""
    if cost.row_stops:
        shape = StepShape(rows, rows, 1, rows, longest, rows, rows, attended=kept, groups=GROUPS)
        return [shape._replace(longest_kept=longest + j) for j in range(1, steps + 1)]
    return [StepShape(rows, rows, 1, kept + j * rows, longest + j, rows, kept + j * rows) for j in range(1, steps + 1)]


def more(cost: StepCost) -> float:
    """Seconds of each of those steps for its groups."""
    return (GROUPS - 1) * cost.group_s if cost.row_stops else 0.0


def one_by_one(cost: StepCost, rows: int, kept: int, longest: int, steps: int) -> list[float]:
    """Time after each step."""
    times = [cost.cost("decode", shape).seconds for shape in shapes_of(cost, rows, kept, longest, steps)]
    return [math.fsum(times[: j + 1]) for j in range(steps)]


@given(costs, starts, st.integers(1, 200))
def test_a_run_takes_as_long_as_its_steps(cost: AffineCost, start: tuple[int, int, int], steps: int) -> None:
    expected = one_by_one(cost, *start, steps)[-1]
    assert DecodeRuns(cost).seconds(*start, steps, more(cost)) == pytest.approx(expected, rel=RELATIVE)


@given(costs, starts, st.integers(1, 200), st.floats(0, 1.1))
@example(AffineCost(0.01, block=1), (1, 0, 0), 129, 0.0)
@example(AffineCost(0.01, block=1, row_stops=(192, 384, 512), group_s=0.01), (1, 0, 0), 129, 1.0)
def test_a_cut_falls_on_the_first_step_that_ends_in_time(
    cost: AffineCost, start: tuple[int, int, int], steps: int, share: float
) -> None:
    ends = one_by_one(cost, *start, steps)
    time = share * ends[-1]
    done, taken = DecodeRuns(cost).until(*start, steps, time, more(cost))
    assert 1 <= done <= steps
    assert taken == pytest.approx(ends[done - 1], rel=RELATIVE)
    slack = RELATIVE * ends[-1]
    assert ends[done - 1] >= time - slack or done == steps
    assert done == 1 or ends[done - 2] < time + slack


@given(costs, starts, st.integers(1, 100), st.data())
def test_a_cut_at_the_end_of_a_step_is_that_step(
    cost: AffineCost, start: tuple[int, int, int], steps: int, data: st.DataObject
) -> None:
    runs = DecodeRuns(cost)
    wanted = data.draw(st.integers(1, steps))
    done, taken = runs.until(*start, steps, runs.seconds(*start, wanted, more(cost)) * (1 - 1e-9), more(cost))
    assert done == wanted
    assert taken == pytest.approx(runs.seconds(*start, wanted, more(cost)), rel=RELATIVE)


@given(costs, starts)
def test_lines_and_shapes_say_the_same_of_a_decode(cost: AffineCost, start: tuple[int, int, int]) -> None:
    rows, kept, longest = start[0], start[1] + start[0], start[2] + 1
    attended = kept if cost.row_stops else None
    seconds = cost.cost("decode", StepShape(rows, rows, 1, kept, longest, rows, kept, attended=attended)).seconds
    lines, constant, until, _ = cost.decode_lines(rows, longest)
    assert constant + max(a + b * kept for a, b in lines) == pytest.approx(seconds, rel=RELATIVE)
    assert until is None or until >= longest


class ThreeLines(AffineCost):
    """Three lines, of which each is the largest somewhere, and one that never is."""

    LINES = ((3.0, 0.0), (1.0, 1.0), (-4.0, 2.0), (0.5, 0.9))

    def cost(self, phase: Phase, shape: StepShape) -> Cost:
        return Cost(max(a + b * shape.kept_tokens for a, b in self.LINES), inside=True)

    def decode_lines(self, rows: int, longest_kept: int) -> DecodeLines:
        return DecodeLines(self.LINES, 0.0, None, inside=True)


@given(st.integers(1, 3), st.integers(0, 12), st.integers(1, 20))
def test_any_number_of_lines_is_taken_at_its_largest(rows: int, kept: int, steps: int) -> None:
    cost = ThreeLines(1.0)
    expected = one_by_one(cost, rows, kept, kept, steps)
    assert DecodeRuns(cost).seconds(rows, kept, kept, steps) == pytest.approx(expected[-1], rel=RELATIVE)
    assert DecodeRuns(cost).until(rows, kept, kept, steps, expected[-1])[0] == steps


def spec(name: str) -> ModelSpec:
    return ModelSpec.from_toml(profiles_folder() / "models" / f"{name}.toml")


def step_models() -> dict[str, StepModel]:
    """Padded models that were measured, within and beyond their range, batches padded to their longest row and rows by
    themselves; a ragged one on its data sheet."""
    a100 = HardwareProfile.from_toml(profiles_folder() / "hardware" / "nvidia-a100-80gb-sxm.toml")
    alone = shipped_engines()["bundled-target-amd-epyc-milan"].step_model(spec("bundled-target"))
    alone = replace(alone, decode=replace(alone.decode, group_s=1e-4))
    padded = replace(alone, padding=replace(alone.padding, row_stops=()))
    return {
        "padded": padded,
        "rows alone": alone,
        "analytic": analytic_model(spec("qwen2.5-7b-instruct"), a100, "bfloat16"),
    }


STEP_MODELS = step_models()
long_starts = st.tuples(st.integers(1, 80), st.integers(1, 2_000)).flatmap(
    lambda rows_longest: st.tuples(
        st.just(rows_longest[0]),
        st.integers(rows_longest[1], rows_longest[0] * rows_longest[1]),
        st.just(rows_longest[1]),
    )
)


@pytest.mark.parametrize("name", STEP_MODELS)
@given(start=long_starts, steps=st.integers(1, 200), share=st.floats(0, 1.1))
def test_runs_of_a_profiles_steps_are_the_sums_of_its_steps(
    name: str, start: tuple[int, int, int], steps: int, share: float
) -> None:
    model = STEP_MODELS[name]
    runs = DecodeRuns(model)
    ends = one_by_one(model, *start, steps)
    assert runs.seconds(*start, steps, more(model)) == pytest.approx(ends[-1], rel=1e-9)
    done, taken = runs.until(*start, steps, share * ends[-1], more(model))
    assert taken == pytest.approx(ends[done - 1], rel=1e-9)
    assert done == steps or ends[done - 1] >= share * ends[-1] * (1 - 1e-9)
    assert done == 1 or ends[done - 2] < share * ends[-1] * (1 + 1e-9)


@pytest.mark.parametrize("name", ["padded", "rows alone"])
@given(start=long_starts, steps=st.integers(1, 200))
def test_the_time_beyond_a_profiles_range_is_that_of_the_steps_there(
    name: str, start: tuple[int, int, int], steps: int
) -> None:
    model = STEP_MODELS[name]
    runs = DecodeRuns(model)
    shapes = shapes_of(model, *start, steps)
    outside = math.fsum(cost.seconds for cost in (model.cost("decode", shape) for shape in shapes) if not cost.inside)
    total = runs.seconds(*start, steps, more(model))
    assert runs.outside_s(*start, steps, total, more(model)) == pytest.approx(outside, rel=1e-9, abs=1e-9 * total)


@given(st.integers(1, 80), st.lists(st.integers(1, 5_000), max_size=30))
def test_an_unpadded_models_range_ends_at_one_length(rows: int, lengths: list[int]) -> None:
    class Narrow(AffineCost):
        def decode_lines(self, rows: int, longest_kept: int) -> DecodeLines:
            return DecodeLines(((1.0, 0.0),), 0.0, None, inside=rows * longest_kept <= 40_000)

    runs = DecodeRuns(Narrow(1.0))
    for longest in lengths:
        assert (runs.outside_s(rows, longest, longest - 1, 1, 1.0) == 0.0) == (rows * longest <= 40_000)
