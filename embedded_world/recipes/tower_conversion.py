"""An open_clip vision tower under the names that transformers' models give the same weights."""

from collections.abc import Mapping

import torch
from torch import Tensor

BLOCK_NAMES = {
    "ln_1.": "layer_norm1.",
    "ln_2.": "layer_norm2.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}


def blip2_vision_state(tower: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of `Blip2VisionModel`; the tower must have no layer norm before its blocks."""
    names = BLOCK_NAMES | {
        "attn.in_proj_": "self_attn.qkv.",
        "attn.out_proj.": "self_attn.projection.",
    }
    return {
        "embeddings.class_embedding": tower["class_embedding"].view(1, 1, -1),
        "embeddings.position_embedding": tower["positional_embedding"][None],
        "embeddings.patch_embedding.weight": tower["conv1.weight"],
        "embeddings.patch_embedding.bias": torch.zeros_like(tower["class_embedding"]),
        "post_layernorm.weight": tower["ln_post.weight"],
        "post_layernorm.bias": tower["ln_post.bias"],
        **_blocks(tower, names),
    }


def clip_vision_state(tower: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of `CLIPVisionModel`; the tower must have a layer norm before its blocks."""
    state = {
        "embeddings.class_embedding": tower["class_embedding"],
        "embeddings.position_embedding.weight": tower["positional_embedding"],
        "embeddings.patch_embedding.weight": tower["conv1.weight"],
        # The library's own spelling.
        "pre_layrnorm.weight": tower["ln_pre.weight"],
        "pre_layrnorm.bias": tower["ln_pre.bias"],
        "post_layernorm.weight": tower["ln_post.weight"],
        "post_layernorm.bias": tower["ln_post.bias"],
    }
    names = BLOCK_NAMES | {"attn.in_proj_": "in_proj.", "attn.out_proj.": "self_attn.out_proj."}
    for name, weight in _blocks(tower, names).items():
        block, fused, part = name.partition("in_proj.")
        if not fused:
            state[name] = weight
            continue
        for letter, third in zip("qkv", weight.chunk(3), strict=True):
            state[f"{block}self_attn.{letter}_proj.{part}"] = third
    return state


def _blocks(tower: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights of the transformer's blocks, their names replaced part by part."""
    prefix = "transformer.resblocks."
    state = {}
    for name, weight in tower.items():
        if name.startswith(prefix):
            block, part = name.removeprefix(prefix).split(".", 1)
            for old, new in names.items():
                part = part.replace(old, new)
            state[f"encoder.layers.{block}.{part}"] = weight
    return state
