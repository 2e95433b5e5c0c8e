"""Pseudo tokens of images by a PALAVRA-style set encoder, refined on their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from models.textual_inversion.refining import RefiningSettings
from tasks.engines import encoder_fingerprint, load_encoder, palavra_fingerprint, token_width
from tasks.stages.pseudo_tokens import MadeTokenStage

if TYPE_CHECKING:
    from models.protocols import FloatArray


class PalavraTokenStage(MadeTokenStage):
    """A pseudo token for each image, which is a set of its own."""

    producer: ClassVar[str] = "cirflow/palavra_tokens/1"

    network: str
    """Folder of the network."""
    refining: RefiningSettings = RefiningSettings()

    @property
    def title(self) -> str:
        """A few words for progress lines."""
        return f"PALAVRA-style pseudo tokens of {self.images.images.title}"

    def identity(self) -> dict[str, Any]:
        """Image features, network, text tower and refinement."""
        return {
            "encoder": dict(encoder_fingerprint(self.encoder)),
            "images": self.images.spec_key,
            "network_of_sets": dict(palavra_fingerprint(self.network)),
            "refining": self.refining.model_dump(),
            "dim": token_width(self.encoder),
            "dtype": "float32",
        }

    def tokens_of(self, image_ids: Sequence[str], features: FloatArray) -> FloatArray:
        """Tokens (B, dt) of images with features (B, d), made now."""
        from models.textual_inversion.palavra import image_tokens
        from tasks.engines import load_palavra

        network, encoder = load_palavra(self.network), load_encoder(self.encoder)
        return image_tokens(network, encoder.tower, features, self.refining)
