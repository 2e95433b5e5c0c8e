"""The verifiers to choose from. Another one is a file and a member of this union."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from models.verifiers.blip_itm import BlipItmSettings
from models.verifiers.openai_verifier import OpenAIVerifierSettings
from models.verifiers.qwen3_vl import VlmVerifierSettings

VerifierSettings: TypeAlias = Annotated[
    VlmVerifierSettings | BlipItmSettings | OpenAIVerifierSettings,
    Field(discriminator="engine"),
]
"""Which verifier looks at candidates, and where it runs."""
