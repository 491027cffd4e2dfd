"""The bundled pair, by its name."""

from __future__ import annotations

from pathlib import Path

from atts_runtime.config import BUNDLED

_MODELS = Path(__file__).parent / "models"


def model_path(model: str, role: str) -> str:
    """The folder or hub id that a role's setting names."""
    return str(_MODELS / role) if model == BUNDLED else model
