"""The report's terms."""

from __future__ import annotations

from html import escape

_TERMS = (
    (
        "r",
        "Asynchronous arithmetic intensity: r = T_c / (T_m + T_s). Without waits for others (T_s = 0) it is the "
        "classic intensity over the machine balance: below 1 memory is the limit, above 1 arithmetic. Waits make it "
        "smaller.",
    ),
    ("T_c", "Seconds of arithmetic: FLOPs (analytic, counted call by call) over the FLOP/s of the hardware profile."),
    (
        "T_m",
        "Seconds of memory: bytes moved (analytic: weights once a step, KV read, KV written) over the B/s of the "
        "hardware profile.",
    ),
    (
        "T_s",
        "Seconds of synchronisation, measured, in two readings. Stall of chains: what chains waited at a barrier or "
        "for the bank of first scores, summed over chains. Engine idle: what engines stood still, summed over engines.",
    ),
    (
        "T_roof",
        "The least time that an engine's steps can take: the larger of arithmetic and memory, summed over steps. It is "
        "neither T_c nor T_m but at least as large as either.",
    ),
    (
        "T_overhead",
        "A step's time above its roof, and the handling between steps: launches, Python, scheduling. It is never "
        "counted into T_s. An engine's wall = T_roof + T_overhead + idle.",
    ),
    ("FLOP/byte, intensity", "FLOPs over bytes moved. The machine balance is the intensity at which T_c = T_m."),
    ("roof", "The larger an intensity, the more FLOP/s memory allows, up to what the device computes at most."),
    ("takeover", "The target continues, or writes anew, a segment that the decision rejects."),
    ("alpha", "The nominal takeover rate: a budget of compute and KV memory, no statement about correctness."),
    (
        "barrier, bank",
        "Causes of stall: waiting for all chains of a turn; waiting until the bank of scores is complete.",
    ),
    (
        "queue, admission, driver",
        "No stall: waiting for an engine; for the question's turn; for Python between commands.",
    ),
    (
        "provenance",
        "measured: by clocks and counters of the run or the profile. analytic: computed from the model's shape and the "
        "calls. datasheet: as the vendor says. fitted: a model's coefficient. fake: a stand-in of a test. "
        "unknown: nobody measured or counted it; it is not 0.",
    ),
)


def glossary() -> str:
    """A list of definitions."""
    return "<dl>" + "\n".join(f"<dt>{escape(term)}</dt><dd>{escape(says)}</dd>" for term, says in _TERMS) + "</dl>\n"
