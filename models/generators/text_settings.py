"""Settings that all text generators share."""

from __future__ import annotations

from pydantic import Field

from models.engine_settings import EngineSettings


class TextGeneratorSettings(EngineSettings):
    """How long answers may be, and how they are drawn."""

    max_new_tokens: int = Field(96, ge=1)
    """Most tokens in an answer."""
    seed: int = 0
    """Seed of sampled answers (temperature above 0)."""
