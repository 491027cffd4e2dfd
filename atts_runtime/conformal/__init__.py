"""Conformal calibration: p-values and banks. Imports no engine and knows no chains."""

from atts_runtime.conformal.bank import Bank
from atts_runtime.conformal.pvalue import Counts, plain, smoothed

__all__ = ["Bank", "Counts", "plain", "smoothed"]
