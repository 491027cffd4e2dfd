"""A visited point is the step that it names: the engine's own pass over so many rows, new and cached tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from atts_runtime.engines.causal_lm import CausalLM
from atts_runtime.engines.worker import Worker
from atts_runtime.profiler.grid import PROMPT, Grid, Point, grid_of, measure
from tests.runtime.engines.watching import Pass, watch


@pytest.fixture
def worker(tiny_target: Path) -> Worker:
    torch.set_num_threads(1)
    return Worker(CausalLM(str(tiny_target), "cpu"), max_rows=8, kv_budget_tokens=None)


POINTS = (
    Point("decode", ((1, 16), (1, 30)), False),
    Point("append", ((5, 16), (1, 40), (12, 8)), True),
)


def test_a_visit_feeds_what_its_point_says(worker: Worker) -> None:
    passes: list[Pass] = []
    watch(worker.lm, passes.append)
    shares: list[float] = []
    measured = measure(worker, Grid(POINTS, 64), 1e-6, shares.append)
    assert measured.rounds == 2
    fed = [(p.append, [(len(ids), start) for ids, start in zip(p.fed, p.starts, strict=True)]) for p in passes]
    appends = [rows for append, rows in fed if append]
    decodes = [rows for append, rows in fed if not append]
    assert appends == [[(5, 16), (1, 40), (12, 8)]] * 2
    # One visit to warm up, then a visit a round, each of the same steps on growing chains.
    visit = decodes[: len(decodes) // 3]
    assert visit == [[(1, 16 + i), (1, 30 + i)] for i in range(len(visit))]
    assert decodes == visit * 3
    assert all(0 <= share <= 1 for share in shares)


def test_samples_carry_the_shapes_and_what_calls_took(worker: Worker) -> None:
    measured = measure(worker, Grid(POINTS, 64), 1e-6, lambda share: None)
    decode, append = measured.samples
    assert append.shape[:6] == (3, 18, 12, 82, 41, 18)
    assert append.held_out
    assert not decode.held_out
    assert decode.shape.rows == decode.shape.new_tokens == 2
    # The middle of the steps that were timed, which are all but a visit's first and last.
    per_visit = decode.steps // measured.rounds
    assert decode.shape.longest_kept == 30 + 1 + (per_visit + 2) // 2
    assert all(sample.seconds > 0 for sample in measured.samples)
    assert {call.kind for call in measured.calls} == {"generate", "score"}


def test_a_grid_keeps_to_the_engines_limits() -> None:
    for point in grid_of(8, 256, 400, 20).points:
        longest_new = -(-max(n for n, _ in point.rows) // 4) * 4
        assert len(point.rows) <= 8
        assert all(s >= 20 and n + s < 400 for n, s in point.rows)
        assert point.phase == "decode" or len(point.rows) * longest_new <= 256
    assert len(PROMPT) == 1
