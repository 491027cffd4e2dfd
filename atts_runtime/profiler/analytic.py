"""Step times of a device on which no engine was measured: its data sheet, and constants that others publish.

No range limits such a model and nothing vouches for it either: every coefficient is `analytic` and says whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from atts_runtime.errors import InputError
from atts_runtime.profiler.hardware import HardwareProfile
from atts_runtime.profiler.modelspec import ModelSpec
from atts_runtime.profiler.provenance import Number
from atts_runtime.profiler.steptime import RAGGED, Link, PhaseCosts, StepModel

__all__ = ["SHIPPED", "Constants", "analytic_model"]

# https://github.com/inference-sim/inference-sim, whose simulator of vLLM ships them for its roofline.
_BLIS = "inference-sim (BLIS), hardware_config.json"


@dataclass(frozen=True, slots=True)
class Constants:
    """What a data sheet does not say. MFUs and eta as shares; overheads of an engine with paged attention."""

    append_mfu: Number
    decode_mfu: Number
    eta: Number
    step_s: Number
    layer_s: Number
    row_s: Number
    all_reduce_s: Number


def _constants(append_mfu: float, decode_mfu: float) -> Constants:
    return Constants(
        append_mfu=Number(append_mfu, "1", "analytic", f"{_BLIS}: mfuPrefill"),
        decode_mfu=Number(decode_mfu, "1", "analytic", f"{_BLIS}: mfuDecode"),
        eta=Number(1.0, "1", "analytic", "assumed: simulators of vLLM fit values near 1"),
        step_s=Number(126e-6, "s", "analytic", "inference-sim (BLIS), fitted overhead a step"),
        layer_s=Number(32e-6, "s", "analytic", "inference-sim (BLIS), fitted overhead a layer"),
        row_s=Number(0.0, "s", "analytic", "assumed: none beyond the step's"),
        all_reduce_s=Number(20e-6, "s", "analytic", f"{_BLIS}: allReduceLatency"),
    )


SHIPPED: Mapping[str, Constants] = {
    "nvidia-a100-80gb-sxm": _constants(0.38, 0.18),
    "nvidia-h100-80gb-sxm": _constants(0.45, 0.30),
    "nvidia-h200": _constants(0.45, 0.30),  # the H100's compute, as inference-sim has it
}


def analytic_model(
    spec: ModelSpec, hardware: HardwareProfile, dtype: str, *, tp: int = 1, constants: Constants | None = None
) -> StepModel:
    """Step times of `spec` on `tp` such devices, ragged batches, compute and memory overlapped.

    Raises InputError where the profile lacks a peak of `dtype`, ships without constants and none are given, or lacks
    the link that tp > 1 needs.
    """
    known = constants or SHIPPED.get(hardware.name)
    if known is None:
        raise InputError(f"no constants for hardware {hardware.name}; choose one of {', '.join(SHIPPED)}, or give some")
    if tp < 1:
        raise InputError(f"tensor parallel degree must be at least 1, got {tp}")
    if tp > 1 and hardware.link_bytes_per_s is None:
        raise InputError(f"hardware profile {hardware.name} has no limits.link_bytes_per_s, which tp > 1 needs; add it")
    peak = hardware.peak(dtype)
    link = hardware.link_bytes_per_s
    provenance = {
        "peak.flops_per_s": peak.flops,
        "peak.bytes_per_s": peak.bandwidth,
        "append.mfu": known.append_mfu,
        "decode.mfu": known.decode_mfu,
        "link.latency_s": known.all_reduce_s,
    } | ({} if link is None else {"link.bytes_per_s": link})
    for phase in ("append", "decode"):
        for name in ("eta", "step_s", "layer_s", "row_s"):
            provenance[f"{phase}.{name}"] = getattr(known, name)

    def costs(mfu: Number) -> PhaseCosts:
        overheads = (known.step_s.value, known.row_s.value, known.layer_s.value)
        return PhaseCosts(mfu.value, known.eta.value, *overheads, overlapped=True)

    return StepModel(
        spec,
        peak.flops_per_s,
        peak.bytes_per_s,
        costs(known.append_mfu),
        costs(known.decode_mfu),
        RAGGED,
        tp=tp,
        link=None if link is None else Link(link.value, known.all_reduce_s.value),
        provenance=provenance,
    )
