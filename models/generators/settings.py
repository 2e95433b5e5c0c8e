"""The text generators to choose from. Another one is a file and a member of this union."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from models.generators.openai_server import OpenAIServerSettings
from models.generators.transformers import TransformersSettings
from models.imported_texts import ImportedRewrites

GeneratorSettings: TypeAlias = Annotated[
    TransformersSettings | OpenAIServerSettings | ImportedRewrites,
    Field(discriminator="engine"),
]
"""Which language model writes, and where it runs."""
