"""Weights under the names of BLIP's own code, which published systems keep, as transformers' names.

Shape legend: N tokens of a picture (class token and patches), W their width.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from torch.nn import functional

from models.blip.shape import HEAD_WIDTH, VisionShape, shapes_of
from models.blip.towers import BlipTowers, BlipVision, new_towers
from models.checkpoints import UnusableCheckpoint
from models.published_state import State, fill, log_taken, side_of

_RENAMED: Final = (
    ("visual_encoder.cls_token", "vision_model.embeddings.class_embedding"),
    ("visual_encoder.pos_embed", "vision_model.embeddings.position_embedding"),
    ("visual_encoder.patch_embed.proj.", "vision_model.embeddings.patch_embedding."),
    ("visual_encoder.norm.", "vision_model.post_layernorm."),
    ("visual_encoder.blocks.#.norm1.", "vision_model.encoder.layers.#.layer_norm1."),
    ("visual_encoder.blocks.#.norm2.", "vision_model.encoder.layers.#.layer_norm2."),
    ("visual_encoder.blocks.#.attn.qkv.", "vision_model.encoder.layers.#.self_attn.qkv."),
    ("visual_encoder.blocks.#.attn.proj.", "vision_model.encoder.layers.#.self_attn.projection."),
    ("visual_encoder.blocks.#.mlp.", "vision_model.encoder.layers.#.mlp."),
)
"""Beginnings of names of the image tower, # a number, here and there; all others are the same."""


def _patterns(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple(
        (
            re.compile("^" + re.escape(old).replace(r"\#", r"(\d+)")),
            new.replace("#", r"\1"),
        )
        for old, new in pairs
    )


_HERE: Final = _patterns(_RENAMED)
_THERE: Final = _patterns((new, old) for old, new in _RENAMED)

_UNUSED: Final = re.compile(
    r"(visual_encoder|text_encoder|vision_proj|text_proj)_m\..+"  # copies for momentum
    r"|temp|image_queue|text_queue|ptr_queue|idx_queue"
    r"|text_encoder\.embeddings\.position_ids"
    r"|itm_head\.(weight|bias)"  # image-text matching: no system here reads it
)


def from_original(state: Mapping[str, torch.Tensor]) -> State:
    """The tensors of both towers and projections under transformers' names.

    What retrieval never reads is dropped: copies for momentum, queues, the temperature and the
    head for matching. Every other name is kept, so that a strict reader meets it.
    """
    return {_renamed(name, _HERE): each for name, each in _used(state).items()}


def _used(state: Mapping[str, torch.Tensor]) -> State:
    return {name: each for name, each in state.items() if not _UNUSED.fullmatch(name)}


def load_towers(
    state: Mapping[str, torch.Tensor],
    where: str | Path,
    image_size: int | None = None,
    head_width: int = HEAD_WIDTH,
) -> tuple[BlipTowers, VisionShape]:
    """Both towers of a state under BLIP's own names, in fp32, in evaluation mode.

    Args:
        state: Whole: both towers and projections.
        where: The file, for messages and the log.
        image_size: Side of the pictures to be read; positions are resized to it. None keeps the
            file's.
        head_width: Width of a head, which no shape tells; 64 in every published file.

    Returns:
        The towers, and the sizes of the image tower.

    Raises:
        UnusableCheckpoint: A tensor is missing, unknown or of another shape.
    """
    used = _used(state)
    vision, text = shapes_of(used, where, head_width)
    if image_size is not None and image_size != vision.image_size:
        if image_size % vision.patch:
            raise UnusableCheckpoint(
                f"image_size is {image_size}; give a multiple of {vision.patch}, a patch's side"
            )
        place = "visual_encoder.pos_embed"
        used[place] = resized_positions(used[place], image_size // vision.patch)
        vision = replace(vision, image_size=image_size)
    renamed = from_original(used)
    with torch.device("meta"):
        towers = new_towers(BlipVision(vision.config), text)
    fill(towers, renamed, where, lambda name: _renamed(name, _THERE))
    towers.renew_buffers()
    log_taken(where, renamed, filter(_UNUSED.fullmatch, state))
    return towers.eval().requires_grad_(False), vision


def resized_positions(table: torch.Tensor, side: int) -> torch.Tensor:
    """A table of positions (1, N, W) for `side` x `side` patches, bicubic; the class row is kept.

    Raises:
        UnusableCheckpoint: The table belongs to no square of patches.
    """
    old = side_of(table.shape[1], "the table of positions", "pictures of another size")
    grid = table[:, 1:].float().reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([table[:, :1].float(), grid.flatten(2).transpose(1, 2)], dim=1)


def _renamed(name: str, patterns: Iterable[tuple[re.Pattern[str], str]]) -> str:
    for pattern, replacement in patterns:
        changed, count = pattern.subn(replacement, name)
        if count:
            return changed
    return name
