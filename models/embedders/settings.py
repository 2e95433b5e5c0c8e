"""The embedders to choose from. Another one is a file and a member of this union."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from models.embedders.chat_embedder import ChatEmbedderSettings
from models.embedders.clip_embedder import ClipEmbedderSettings
from models.embedders.openai_embedder import OpenAIEmbedderSettings

EmbedderSettings: TypeAlias = Annotated[
    ChatEmbedderSettings | ClipEmbedderSettings | OpenAIEmbedderSettings,
    Field(discriminator="engine"),
]
"""Which model reads image and text together, and where it runs."""
