"""Whose segment is rejected: gates, one object each."""

from atts_runtime.control.gates.base import Due, Gate, Judges, PreSample, Segment, Verdict

__all__ = ["Due", "Gate", "Judges", "PreSample", "Segment", "Verdict"]
