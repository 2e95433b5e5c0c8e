"""A fine-tuned CLIP in a published file, under OpenAI's names, as an open_clip model.

open_clip has the same names; the architecture follows from the shapes, as in OpenAI's own code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import open_clip
import torch
from open_clip.transform import PreprocessCfg

from models.checkpoints import UnusableCheckpoint, file_sha256
from models.composed.clip_towers import ClipTowers
from models.encoders.preprocess import ImagePreprocess
from models.instructcir.parts import NetworkParts, bare_backbone, make_tokens
from models.published_state import State, fill, in_heads, side_of, sizes_of

HEAD_WIDTH: Final = 64
"""Of an attention's heads."""
_PAD_RATIO: Final = 1.25
_OPENAI: Final = (
    *("RN50", "RN101", "RN50x4", "RN50x16", "RN50x64"),
    *("ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336"),
)
_NOT_WEIGHTS: Final = ("input_resolution", "context_length", "vocab_size")
"""Sizes that OpenAI's archives hold next to the weights."""


def published_towers(
    state: Mapping[str, torch.Tensor], file: Path
) -> tuple[ClipTowers, NetworkParts]:
    """The towers of a state under OpenAI's names, in fp32 on the CPU, and its parts.

    Pictures are padded to a ratio of 1.25 (`TargetPad`) and read at the size that the positions
    have room for; texts are read by CLIP's own tokenizer.

    Args:
        state: All tensors of the CLIP and nothing else.
        file: Where they come from, for messages and the parts' identity.

    Raises:
        UnusableCheckpoint: A tensor is missing, unknown or of another shape.
    """
    state = {name: each for name, each in state.items() if name not in _NOT_WEIGHTS}
    architecture = clip_architecture(state, file)
    with torch.device("meta"):
        model = bare_backbone(architecture)
    fill(model, state, file)
    size, tokens = architecture["vision_cfg"]["image_size"], make_tokens(architecture, None)
    if (words := architecture["text_cfg"]["vocab_size"]) <= tokens.end:
        raise UnusableCheckpoint(
            f"{file}: token_embedding.weight has {words} rows, and CLIP's tokenizer knows "
            f"{tokens.end + 1} words; take the published file again"
        )
    parts = NetworkParts(
        architecture,
        tokens,
        ImagePreprocess("targetpad", _PAD_RATIO, PreprocessCfg(size=(size, size))),
        {
            "model": model_name(architecture),
            "pretrained": "openai",
            "weights_sha256": file_sha256(file),
        },
    )
    return ClipTowers(model, parts.tokens.end), parts


def clip_architecture(state: Mapping[str, torch.Tensor], file: Path) -> dict[str, Any]:
    """open_clip's configuration of a model with these tensors.

    Heads are 64 wide in every CLIP of OpenAI's, and the activation is QuickGELU: no shape tells.

    Raises:
        UnusableCheckpoint: A tensor that tells a size is missing.
    """
    text_positions, words = "positional_embedding", "token_embedding.weight"
    context, text_width = sizes_of(state, text_positions, 2, file)
    text = {
        "context_length": context,
        "vocab_size": sizes_of(state, words, 2, file)[0],
        "width": text_width,
        "heads": in_heads(text_width, HEAD_WIDTH, text_positions, file),
        "layers": _count(state, "transformer.resblocks.", file),
    }
    residual = any(name.startswith("visual.layer1.") for name in state)
    vision = _residual_network(state, file) if residual else _vision_transformer(state, file)
    dim = sizes_of(state, "text_projection", 2, file)[1]
    return {"embed_dim": dim, "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}


def model_name(architecture: Mapping[str, Any]) -> str:
    """open_clip's name of an architecture of OpenAI's, from which published ones were fine-tuned.

    Another one is called by the width of its joint space.
    """
    for name in _OPENAI:
        known = open_clip.get_model_config(name)
        same = known["embed_dim"] == architecture["embed_dim"] and all(
            known["vision_cfg"].get(key) == architecture["vision_cfg"][key]
            for key in ("layers", "width", "image_size", "patch_size")
        )
        if same:
            return name
    return f"CLIP of width {architecture['embed_dim']}"


def split(state: State, prefix: str) -> tuple[State, State]:
    """Tensors under a prefix, without it, and the others."""
    below = {n.removeprefix(prefix): each for n, each in state.items() if n.startswith(prefix)}
    return below, {n: each for n, each in state.items() if not n.startswith(prefix)}


def _vision_transformer(state: Mapping[str, torch.Tensor], file: Path) -> dict[str, Any]:
    patches, places = "visual.conv1.weight", "visual.positional_embedding"
    width, _, patch, _ = sizes_of(state, patches, 4, file)
    in_heads(width, HEAD_WIDTH, patches, file)
    side = side_of(sizes_of(state, places, 2, file)[0], places, file)
    return {
        "image_size": side * patch,
        "layers": _count(state, "visual.transformer.resblocks.", file),
        "width": width,
        "patch_size": patch,
        "head_width": HEAD_WIDTH,
    }


def _residual_network(state: Mapping[str, torch.Tensor], file: Path) -> dict[str, Any]:
    places = "visual.attnpool.positional_embedding"
    side = side_of(sizes_of(state, places, 2, file)[0], places, file)
    layers = (1, 2, 3, 4)
    return {
        "image_size": side * 32,
        "layers": [_count(state, f"visual.layer{number}.", file) for number in layers],
        "width": sizes_of(state, "visual.layer1.0.conv1.weight", 4, file)[0],
        "patch_size": None,
    }


def _count(state: Mapping[str, torch.Tensor], prefix: str, file: Path) -> int:
    """How many numbered modules lie below a prefix."""
    numbers = {n.removeprefix(prefix).split(".")[0] for n in state if n.startswith(prefix)}
    if not numbers:
        raise UnusableCheckpoint(
            f"{file} holds no CLIP under OpenAI's names: {prefix}* is missing; take the published "
            "file again, or say what it is"
        )
    return len(numbers)
