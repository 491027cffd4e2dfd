"""Parquet files that are not as pandas wrote them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq


def with_metadata(path: Path, metadata: str) -> Path:
    """The table, with this in the place of what pandas keeps there for itself."""
    pq.write_table(pq.read_table(path).replace_schema_metadata({"pandas": metadata}), path)
    return path
