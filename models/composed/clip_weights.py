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
from models.published_state import State, fill

_HEAD_WIDTH: Final = 64
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
    size = architecture["vision_cfg"]["image_size"]
    parts = NetworkParts(
        architecture,
        make_tokens(architecture, None),
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
    try:
        context, text_width = state["positional_embedding"].shape
        text = {
            "context_length": context,
            "vocab_size": len(state["token_embedding.weight"]),
            "width": text_width,
            "heads": text_width // _HEAD_WIDTH,
            "layers": _count(state, "transformer.resblocks."),
        }
        residual = any(name.startswith("visual.layer1.") for name in state)
        vision = _residual_network(state) if residual else _vision_transformer(state)
        dim = state["text_projection"].shape[1]
    except (KeyError, ValueError, IndexError) as error:
        raise UnusableCheckpoint(
            f"{file} holds no CLIP under OpenAI's names: {error} is missing or misshapen"
        ) from error
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


def _vision_transformer(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    width, _, patch, _ = state["visual.conv1.weight"].shape
    side = round((len(state["visual.positional_embedding"]) - 1) ** 0.5)
    return {
        "image_size": side * patch,
        "layers": _count(state, "visual.transformer.resblocks."),
        "width": width,
        "patch_size": patch,
        "head_width": _HEAD_WIDTH,
    }


def _residual_network(state: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    side = round((len(state["visual.attnpool.positional_embedding"]) - 1) ** 0.5)
    return {
        "image_size": side * 32,
        "layers": [_count(state, f"visual.layer{number}.") for number in (1, 2, 3, 4)],
        "width": len(state["visual.layer1.0.conv1.weight"]),
        "patch_size": None,
    }


def _count(state: Mapping[str, torch.Tensor], prefix: str) -> int:
    """How many numbered modules lie below a prefix."""
    numbers = {n.removeprefix(prefix).split(".")[0] for n in state if n.startswith(prefix)}
    if not numbers:
        raise KeyError(f"{prefix}*")
    return len(numbers)
