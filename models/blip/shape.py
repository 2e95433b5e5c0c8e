"""Sizes of BLIP's towers, as a record and as transformers' configurations.

Two defaults of transformers fit the weights and compute something else: 8 heads in the text
tower and an epsilon of 1e-5 in the image tower. BLIP has 12 and 1e-6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import BlipTextConfig, BlipVisionConfig

from models.published_state import in_heads, side_of, sizes_of

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
    state: Mapping[str, torch.Tensor], where: str | Path, head_width: int = HEAD_WIDTH
) -> tuple[VisionShape, TextShape]:
    """Sizes read off weights under the names of BLIP's own code.

    Args:
        state: `visual_encoder.*`, `text_encoder.*`, `vision_proj.*` and `text_proj.*`.
        where: The file, for messages.
        head_width: Width of a head, which no shape tells.

    Raises:
        UnusableCheckpoint: They are another model's; the message names the weight.
    """

    def sizes(name: str, axes: int) -> tuple[int, ...]:
        return sizes_of(state, name, axes, where)

    patches, places = "visual_encoder.patch_embed.proj.weight", "visual_encoder.pos_embed"
    words, layer = "text_encoder.embeddings.word_embeddings.weight", "text_encoder.encoder.layer."
    width, _, _, patch = sizes(patches, 4)
    vocabulary, text_width = sizes(words, 2)
    vision = VisionShape(
        width=width,
        layers=_layers(state, "visual_encoder.blocks."),
        heads=in_heads(width, head_width, patches, where),
        image_size=side_of(sizes(places, 3)[1], places, where) * patch,
        patch=patch,
    )
    text = TextShape(
        width=text_width,
        layers=_layers(state, layer),
        heads=in_heads(text_width, head_width, words, where),
        hidden=sizes(f"{layer}0.intermediate.dense.weight", 2)[0],
        vocabulary=vocabulary,
        positions=sizes("text_encoder.embeddings.position_embeddings.weight", 2)[0],
        memory=sizes(f"{layer}0.crossattention.self.key.weight", 2)[1],
        dim=sizes("text_proj.weight", 2)[0],
    )
    return vision, text


def _layers(state: Mapping[str, Any], prefix: str) -> int:
    return len({name[len(prefix) :].partition(".")[0] for name in state if name.startswith(prefix)})
