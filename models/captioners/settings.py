"""The captioners to choose from. Another one is a file and a member of this union."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from models.captioners.blip2 import Blip2Settings
from models.captioners.llava import LlavaSettings
from models.captioners.openai_images import OpenAIImagesSettings
from models.imported_texts import ImportedCaptions

CaptionerSettings: TypeAlias = Annotated[
    Blip2Settings | LlavaSettings | OpenAIImagesSettings | ImportedCaptions,
    Field(discriminator="engine"),
]
"""Which captioner runs, and where."""
