"""Numbers as people read them. None is unknown, and says so."""

from __future__ import annotations

UNKNOWN = "unknown"
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def fixed(value: float | None, form: str = ",.2f") -> str:
    """The value in a format of Python's."""
    return UNKNOWN if value is None else format(value, form)


def percent(value: float | None, digits: int = 1) -> str:
    """A share."""
    return UNKNOWN if value is None else f"{value:.{digits}%}"


def count(value: float | None) -> str:
    """A whole number with thousands apart."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """Seconds to three figures or so."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f} s" if abs(value) >= 100 else f"{value:.1f} s" if abs(value) >= 10 else f"{value:.2f} s"


def scaled(value: float | None, unit: str) -> str:
    """With a prefix of the SI: 12.3 GFLOP."""
    if value is None:
        return UNKNOWN
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def short(value: float | None) -> str:
    """To three figures."""
    return UNKNOWN if value is None else f"{value:,.3g}" if abs(value) < 1e6 else f"{value:.2e}"
