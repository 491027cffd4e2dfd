"""Where the time, the FLOPs and the bytes of a run go: analytic counts first, measurements beside them.

Nothing here imports torch: the simulator reads the same counts.
"""

from __future__ import annotations

from atts_runtime.profiler.counts import Counts, Fed, Rates, decode, expected_experts, prefill, score, step
from atts_runtime.profiler.modelspec import Experts, ModelSpec

__all__ = ["Counts", "Experts", "Fed", "ModelSpec", "Rates", "decode", "expected_experts", "prefill", "score", "step"]
