"""BLIP's reading of texts over images on the frozen image tower of an open_clip backbone.

The text tower is BLIP's in form, small and new, but for its words, which start as the backbone's.
Targets are the backbone's own image features: its projection stands in BLIP's place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from open_clip.transformer import VisionTransformer
from torch import nn

from models.blip.shape import TextShape
from models.blip.towers import BlipTowers, new_towers
from models.blip.word_pieces import padded
from models.instructcir.parts import (
    BackboneUnsupported,
    NetworkParts,
    bare_backbone,
    load_backbone,
    make_tokens,
)

if TYPE_CHECKING:
    from models.encoders.spec import EncoderSpec
    from models.encoders.text_tokens import TextTokens

EXTRA_WORDS: Final = 3
"""Rows behind the backbone's words: padding, [DEC] and [ENC]."""


class BackboneWords:
    """The backbone's byte pairs with BLIP's extra tokens; see `word_pieces.WordPieces`.

    Attributes:
        pad: Id of padding.
        decode: Id of [DEC].
        encode: Id of [ENC].
    """

    def __init__(self, tokens: TextTokens, words: int) -> None:
        """Put the extra tokens behind a tokenizer's own.

        Args:
            tokens: The backbone's tokenizer.
            words: Rows of its table of words.
        """
        self._tokens = tokens
        self.pad, self.decode, self.encode = range(words, words + EXTRA_WORDS)

    def __call__(
        self, texts: Sequence[str], *, over_image: bool, longest: int, marked: bool = False
    ) -> torch.Tensor:
        """Token ids (B, L) int64; start of text and end of text are [CLS] and [SEP]."""
        first = [self.encode] if over_image else list(self._tokens.start)
        first += [self.decode] * marked
        room = longest - len(first) - 1
        bodies = [self._tokens.ids(text)[:room] for text in texts]
        return padded([[*first, *body, self._tokens.end] for body in bodies], self.pad)


class BackboneVision(nn.Module):
    """All tokens of an open_clip vision transformer after its last norm."""

    def __init__(self, visual: VisionTransformer) -> None:
        """Take over the tower without its projection.

        Raises:
            BackboneUnsupported: Its feature is not the projected class token.
        """
        super().__init__()
        if visual.pool_type != "tok" or visual.attn_pool is not None:
            raise BackboneUnsupported(
                "the image feature of this backbone is not its class token; choose a CLIP such as "
                "ViT-B-32 or ViT-L-14"
            )
        self.visual = visual
        self.visual.proj = None

    def tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """See `towers.ImageTokens`."""
        found: torch.Tensor = self.visual.transformer(self.visual._embeds(pixels))
        return self.visual.ln_post(found)


def towers_on_backbone(
    spec: EncoderSpec, layers: int, dropout: float, seed: int
) -> tuple[BlipTowers, NetworkParts, BackboneWords]:
    """Towers on a pre-trained backbone, in fp32 on the CPU, the image side frozen.

    Args:
        spec: The backbone; its precision and device are not looked at.
        layers: Of the text tower; its width and heads are the backbone's text tower's.
        dropout: Dropped share in training.
        seed: Of the new weights.

    Returns:
        The towers, what the backbone is without weights, and its words.

    Raises:
        EncoderNotFound: No such backbone, tag or weights.
        BackboneUnsupported: It has no vision transformer that can be read like this.
    """
    with torch.random.fork_rng(devices=[]):
        backbone, parts = load_backbone(spec)
        torch.manual_seed(seed)
        projection = backbone.visual.proj.detach()
        words = getattr(backbone, "text", backbone).token_embedding.weight.detach()
        towers = _joined(backbone.visual, _shape(parts.architecture, layers, dropout))
    with torch.no_grad():
        towers.text_encoder.embeddings.word_embeddings.weight[: len(words)] = words
        towers.vision_proj.weight.copy_(projection.T)
        towers.vision_proj.bias.zero_()
    return towers, parts, words_of(parts.architecture, parts.tokens)


def bare_towers(
    architecture: Mapping[str, Any], shape: TextShape, bpe: bytes | None
) -> tuple[BlipTowers, BackboneWords]:
    """Towers on a backbone's architecture whose weights are still to come, and its words.

    Args:
        architecture: open_clip's model configuration.
        shape: Of the text tower.
        bpe: The backbone's own byte pairs; None where they are CLIP's.
    """
    with torch.device("meta"):
        towers = _joined(bare_backbone(architecture).visual, shape)
    towers.renew_buffers()
    return towers, words_of(architecture, make_tokens(architecture, bpe))


def words_of(architecture: Mapping[str, Any], tokens: TextTokens) -> BackboneWords:
    """The words of a backbone with BLIP's extra tokens."""
    return BackboneWords(tokens, _vocabulary(architecture))


def _joined(visual: VisionTransformer, shape: TextShape) -> BlipTowers:
    return new_towers(BackboneVision(visual), shape)


def _shape(architecture: Mapping[str, Any], layers: int, dropout: float) -> TextShape:
    vision, text = architecture["vision_cfg"], architecture["text_cfg"]
    return TextShape(
        width=text["width"],
        layers=layers,
        heads=text["heads"],
        hidden=4 * text["width"],
        vocabulary=_vocabulary(architecture) + EXTRA_WORDS,
        positions=text.get("context_length", 77),
        memory=vision["width"],
        dim=architecture["embed_dim"],
        dropout=dropout,
    )


def _vocabulary(architecture: Mapping[str, Any]) -> int:
    return int(architecture["text_cfg"].get("vocab_size", 49_408))
