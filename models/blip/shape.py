"""Sizes of BLIP's towers, as a record and as transformers' configurations.

Two defaults of transformers fit the weights and compute something else: 8 heads in the text
tower and an epsilon of 1e-5 in the image tower. BLIP has 12 and 1e-6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import BlipTextConfig, BlipVisionConfig

from models.checkpoints import UnusableCheckpoint

if TYPE_CHECKING:
    from models.protocols import Json

HEAD_WIDTH: Final = 64
"""Width of a head in both towers of every published BLIP."""


@dataclass(frozen=True)
class VisionShape:
    """Sizes of BLIP's vision transformer.

    Attributes:
        width: W of the tokens; the hidden layer of a block is four times as wide.
        layers: Blocks.
        heads: Heads of each.
        image_size: Side of the pictures it reads.
        patch: Side of a patch.
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    image_size: int = 384
    patch: int = 16

    @property
    def config(self) -> BlipVisionConfig:
        """For transformers' `BlipVisionModel`."""
        return BlipVisionConfig(
            hidden_size=self.width,
            intermediate_size=4 * self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            image_size=self.image_size,
            patch_size=self.patch,
            layer_norm_eps=1e-6,
            attn_implementation="eager",
        )


@dataclass(frozen=True)
class TextShape:
    """Sizes of BLIP's text tower, a BERT with cross-attention, and of the joint space.

    Attributes:
        width: Of the text tokens.
        layers: Layers, each with cross-attention.
        heads: Heads of each.
        hidden: Width of a layer's feed-forward part.
        vocabulary: Rows of the table of words.
        positions: The longest text in tokens.
        memory: Width of the image tokens that are attended to.
        dim: d, the joint space.
        dropout: Dropped share in training.
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int = 3072
    vocabulary: int = 30_524
    positions: int = 512
    memory: int = 768
    dim: int = 256
    dropout: float = 0.1

    @property
    def config(self) -> BlipTextConfig:
        """For transformers' `BlipTextModel`; `is_decoder` is what makes cross-attention."""
        return BlipTextConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            encoder_hidden_size=self.memory,
            intermediate_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            max_position_embeddings=self.positions,
            layer_norm_eps=1e-12,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            is_decoder=True,
            **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id")),
            attn_implementation="eager",
        )

    @property
    def record(self) -> dict[str, Json]:
        """The sizes in a file; `TextShape(**record)` reads them."""
        return asdict(self)


def shapes_of(
    state: Mapping[str, torch.Tensor], where: str, head_width: int = HEAD_WIDTH
) -> tuple[VisionShape, TextShape]:
    """Sizes read off weights under transformers' names.

    Args:
        state: `vision_model.*`, `text_encoder.*`, `vision_proj.*` and `text_proj.*`.
        where: The file, for messages.
        head_width: Width of a head, which no shape tells.

    Raises:
        UnusableCheckpoint: They are another model's.
    """
    try:
        patches = state["vision_model.embeddings.patch_embedding.weight"]
        positions = state["vision_model.embeddings.position_embedding"]
        words = state["text_encoder.embeddings.word_embeddings.weight"]
        side = round((positions.shape[1] - 1) ** 0.5)
        vision = VisionShape(
            width=patches.shape[0],
            layers=_layers(state, "vision_model.encoder.layers."),
            heads=patches.shape[0] // head_width,
            image_size=side * patches.shape[-1],
            patch=patches.shape[-1],
        )
        layer = "text_encoder.encoder.layer.0."
        text = TextShape(
            width=words.shape[1],
            layers=_layers(state, "text_encoder.encoder.layer."),
            heads=words.shape[1] // head_width,
            hidden=state[f"{layer}intermediate.dense.weight"].shape[0],
            vocabulary=words.shape[0],
            positions=state["text_encoder.embeddings.position_embeddings.weight"].shape[0],
            memory=state[f"{layer}crossattention.self.key.weight"].shape[1],
            dim=state["text_proj.weight"].shape[0],
        )
    except (KeyError, IndexError) as error:
        raise UnusableCheckpoint(
            f"{where} holds no BLIP with two towers: {error} is missing or of another shape"
        ) from error
    return vision, text


def _layers(state: Mapping[str, Any], prefix: str) -> int:
    return len({name[len(prefix) :].partition(".")[0] for name in state if name.startswith(prefix)})
