"""Conformal calibration: p-values, banks, budgets and monitors. Imports no engine and knows no chains."""

from atts_runtime.conformal.bank import Bank, Mondrian, SealedBank
from atts_runtime.conformal.budget import AdaptiveAlpha, TakeoverCap, alpha_for_budget
from atts_runtime.conformal.calibrators import Adaptive, Decision, Frozen, Online, PreSampled
from atts_runtime.conformal.cohorts import CohortBank, Fallback
from atts_runtime.conformal.monitor import Alarm, Monitor, SimpleJumper
from atts_runtime.conformal.pvalue import Counts, plain, plain_batch, smoothed, smoothed_batch
from atts_runtime.conformal.ties import tie_breaker

__all__ = [
    "Adaptive",
    "AdaptiveAlpha",
    "Alarm",
    "Bank",
    "CohortBank",
    "Counts",
    "Decision",
    "Fallback",
    "Frozen",
    "Mondrian",
    "Monitor",
    "Online",
    "PreSampled",
    "SealedBank",
    "SimpleJumper",
    "TakeoverCap",
    "alpha_for_budget",
    "plain",
    "plain_batch",
    "smoothed",
    "smoothed_batch",
    "tie_breaker",
]
