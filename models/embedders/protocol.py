"""Records of composed embedding, and what an embedder fulfils. This module imports no framework.

An embedder reads pictures and a text together. A query without a text is its pictures alone and a
query without pictures its text alone, so that the parts of a composition have vectors as well.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from models.engine_settings import EngineSettings

if TYPE_CHECKING:
    from PIL import Image

    from models.protocols import Fingerprint, FloatArray

NO_EMBEDDER = (
    "no embedding model is named; name one (--set embedder.engine=chat-embedder "
    "--set embedder.model=FOLDER --set embedder.form.preset=qwen3-vl-embedding)"
)


@dataclass(frozen=True, slots=True)
class ComposedQuery:
    """Pictures (RGB) and a text; either may be empty."""

    pictures: tuple[Image.Image, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors, and why some must not be used.

    Attributes:
        vectors: (B, d) float32, not normalised; rows of zeros where there is a reason.
        reasons: For each row why it has no vector; empty where it has one.
    """

    vectors: FloatArray
    reasons: tuple[str, ...]


@runtime_checkable
class ComposedEmbedder(Protocol):
    """A model with one space for composed queries and for pictures."""

    def encode_composed(self, queries: Iterable[ComposedQuery], instruction: str) -> Embedded:
        """Vectors of queries under an instruction; queries are taken as they are needed."""
        ...

    def encode_targets(self, pictures: Iterable[Image.Image]) -> Embedded:
        """Vectors of gallery pictures; no query's instruction changes them."""
        ...


class EmbedderEngine(EngineSettings):
    """What the settings of all embedders have."""

    instruction: str = ""
    """What a query asks for, in words that the model was trained on; empty: the form's own."""

    @property
    def lacking(self) -> str:
        """What is missing before it can run, and what to set; empty: nothing."""
        return ""

    @property
    def asked(self) -> str:
        """The instruction of queries; empty for models that read none."""
        return self.instruction

    @property
    @abstractmethod
    def dim(self) -> int:
        """Width d of the vectors, from files or settings."""

    @property
    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """Everything that changes a target's vector; a query's depends on `asked` too."""

    @abstractmethod
    def load(self) -> ComposedEmbedder:
        """The embedder."""
