"""A reformulation network without its weights: architecture, tokenizer, preprocessing."""

from __future__ import annotations

import copy
import gzip
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import VisionTransformer
from torch import nn

from models.encoders.loading import load_encoder
from models.encoders.spec import BPE_FILE, EncoderSpec
from models.encoders.text_tokens import TextTokens
from models.encoders.text_tower import why_unlike_clip

if TYPE_CHECKING:
    from models.encoders.preprocess import ImagePreprocess
    from models.protocols import Fingerprint


Check: TypeAlias = Callable[[nn.Module, object, str], None]
"""Refuses a model with its tokenizer, by name."""


class BackboneUnsupported(ValueError):
    """The backbone has no place for cross-attention, or no text sequence to attend to."""


@dataclass(frozen=True)
class NetworkParts:
    """Everything but weights and settings.

    Attributes:
        architecture: open_clip's model configuration, the activation included.
        tokens: The tokenizer.
        preprocess: From pictures to pixels.
        base: Fingerprint of the backbone that training started from.
        bpe: The backbone's own byte-pair file; None where it is CLIP's.
    """

    architecture: Mapping[str, Any]
    tokens: TextTokens
    preprocess: ImagePreprocess
    base: Fingerprint
    bpe: bytes | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> NetworkParts:
        """Itself: nothing in it changes, so copies of a network share it."""
        return self


def load_backbone(spec: EncoderSpec, check: Check | None = None) -> tuple[nn.Module, NetworkParts]:
    """Load a backbone with its weights, in fp32 on the CPU.

    How `spec` runs a backbone is not looked at: weights are kept in fp32 for training, and
    autocast decides the precision of the computation.

    Args:
        spec: The backbone.
        check: Refuses what the caller cannot build on; `check_backbone` where left out.

    Raises:
        EncoderNotFound: No such backbone, tag or weights.
        BackboneUnsupported: It cannot be built on; the message says why.
    """
    bare = spec.changed(dtype="fp32", device="cpu", channels_last=False, compile=False)
    encoder = load_encoder(bare)
    tokenizer = encoder.tokenizer
    (check or check_backbone)(encoder.model, tokenizer, spec.name)
    config = open_clip.get_model_config(spec.source)
    architecture = {**config, "quick_gelu": encoder.fingerprint["quick_gelu"]}
    bpe = _own_bpe(spec, config)
    return encoder.model, NetworkParts(
        architecture, encoder.tower.tokens, encoder.preprocess, encoder.fingerprint, bpe
    )


def bare_backbone(architecture: Mapping[str, Any]) -> nn.Module:
    """A backbone without weights of its own, on torch's default device (often `meta`).

    With an image tower of timm's it lies on the CPU: positions that no file holds are computed
    where it is made.

    Args:
        architecture: open_clip's model configuration, whose text tower is open_clip's own.
    """
    config = copy.deepcopy(dict(architecture))
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    if "timm_model_name" not in config["vision_cfg"]:
        return kind(**config)
    config["vision_cfg"]["timm_model_pretrained"] = False
    with torch.device("cpu"):
        return kind(**config)


def make_tokens(architecture: Mapping[str, Any], bpe: bytes | None) -> TextTokens:
    """The tokenizer of an architecture, from its own byte-pair file or CLIP's."""
    text = architecture["text_cfg"]
    options = dict(text.get("tokenizer_kwargs") or {})
    options.pop("bpe_path", None)
    length = int(text.get("context_length", 77))
    if bpe is None:
        return TextTokens(SimpleTokenizer(context_length=length, **options), length)
    gzip.decompress(bpe)  # a damaged file should fail here, by name, and not inside the library
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, BPE_FILE)
        path.write_bytes(bpe)
        return TextTokens(
            SimpleTokenizer(bpe_path=str(path), context_length=length, **options), length
        )


def check_backbone(model: nn.Module, tokenizer: object, name: str) -> None:
    """Refuse a backbone that the network cannot be built on.

    Raises:
        BackboneUnsupported: With the reason, and the backbones to choose instead.
    """
    vision = _why_no_vision(getattr(model, "visual", None))
    if found := [why for why in (vision, why_unlike_clip(model, tokenizer)) if why]:
        raise BackboneUnsupported(
            f"{name!r} cannot be made a reformulation network: {'; '.join(found)}. "
            "Choose a CLIP with a vision transformer of open_clip's own, such as ViT-B-32, "
            "ViT-L-14 or ViT-bigG-14"
        )


def _why_no_vision(visual: nn.Module | None) -> str:
    if not isinstance(visual, VisionTransformer):
        return f"its image tower is {type(visual).__name__}, not open_clip's VisionTransformer"
    if visual.pool_type == "none":
        return "its image tower pools no single embedding"
    return ""


def _own_bpe(spec: EncoderSpec, config: Mapping[str, Any]) -> bytes | None:
    if spec.directory is None:
        return None
    options = config.get("text_cfg", {}).get("tokenizer_kwargs") or {}
    path = spec.directory / options.get("bpe_path", BPE_FILE)
    return path.read_bytes() if path.is_file() else None
