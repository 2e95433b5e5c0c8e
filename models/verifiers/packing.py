"""The candidates of one query behind one shared prefix.

A row is the prefix (judge, text, reference) and then each candidate with its question. A mask keeps
the candidates apart, and each has the rotary positions that it would have alone, so its answer is
that of a row of its own, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedRow:
    """Inputs of a language model for k candidates.

    Attributes:
        ids: Tokens (1, L).
        mask: Which token (second last) reads which (last), (1, 1, L, L).
        positions: Temporal, vertical and horizontal rotary positions (3, 1, L).
        ends: Where each candidate's answer comes (k,).
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    ends: Tensor


def shared_prefix(ids: Tensor, image_token: int) -> int:
    """How many tokens come before the first token of a prompt's second picture.

    Raises:
        ValueError: The prompt holds other than two pictures.
    """
    is_image = (ids == image_token).long()
    starts = torch.nonzero(is_image.diff(prepend=is_image.new_zeros(1)) == 1).flatten()
    if len(starts) != 2:
        raise ValueError(f"the prompt has {len(starts)} pictures, and a verifier reads two")
    return int(starts[1])


def pack(
    model: Any, prompts: Sequence[Tensor], grids: Sequence[Tensor], image_token: int
) -> PackedRow:
    """Put the prompts of one query into one row.

    Args:
        model: A Qwen-VL model, which counts positions.
        prompts: Tokens of each candidate's whole prompt (L_k,); their prefixes are equal.
        grids: Grids of reference and candidate of each prompt (2, 3).
        image_token: The token that stands for a part of a picture.

    Raises:
        ValueError: A prompt has other than two pictures, or the prefixes differ.
    """
    prefix = shared_prefix(prompts[0], image_token)
    first = prompts[0][:prefix]
    suffixes: list[Tensor] = []
    places: list[Tensor] = []
    for prompt, grid in zip(prompts, grids, strict=True):
        if shared_prefix(prompt, image_token) != prefix or not torch.equal(prompt[:prefix], first):
            raise ValueError("the prompts are not those of one query")
        is_image = (prompt == image_token).int()
        found, _ = model.get_rope_index(prompt[None], is_image[None], image_grid_thw=grid)
        suffixes.append(prompt[prefix:])
        places.append(found if not places else found[..., prefix:])
    ids = torch.cat([first, *suffixes])
    lengths = torch.tensor([len(suffix) for suffix in suffixes])
    owner = torch.cat(
        [torch.full((prefix,), -1), torch.arange(len(suffixes)).repeat_interleave(lengths)]
    )
    order = torch.arange(len(ids))
    mask = (order[:, None] >= order) & ((owner == -1) | (owner[:, None] == owner))
    return PackedRow(
        ids[None],
        mask[None, None],
        torch.cat(places, dim=-1),
        prefix + lengths.cumsum(0) - 1,
    )
