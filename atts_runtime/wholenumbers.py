"""How large the whole numbers may be that files bring, so that they are the same ones when they are read again."""

from __future__ import annotations

__all__ = ["LARGEST_EXACT", "LARGEST_IN_TABLES"]

LARGEST_EXACT = 2**53
"""A float has 53 binary digits: it holds every whole number up to here, and beyond only some of them. Fits reckon in
floats, and other programs read the numbers of JSON as such."""

LARGEST_IN_TABLES = 2**63 - 1
"""Columns of tables hold whole numbers in 64 bits, one of them for the sign."""
