"""Batches of queries whose candidates stand behind one prefix, as a verifier learns them.

A row is text, reference, and each candidate with its question; a mask keeps the candidates apart,
and each has the positions that it would have alone. So a row is the same arithmetic as one row a
candidate, at two fifths of the tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration

from embedded_world.drawing import draw_batch
from embedded_world.recipes.verifier_model import (
    ASK,
    IMAGE,
    VISION_END,
    VISION_START,
    patches,
)
from embedded_world.recipes.verifier_queries import CANDIDATES, VerifierQuery
from embedded_world.scenes import NUM_CELLS

_PICTURE: Final = (VISION_START, *[IMAGE] * NUM_CELLS, VISION_END)
_BLOCK: Final = (*_PICTURE, ASK)
BLOCK: Final = len(_BLOCK)
"""Tokens of a candidate and its question."""


@dataclass(frozen=True)
class Seen:
    """What the language model makes of B queries.

    Attributes:
        last: Final hidden states where the answer comes (B, CANDIDATES, d).
        reference: Hidden states of the references' cells at a layer (B, 9, d).
        candidates: The same of the candidates at a later layer (B, CANDIDATES, 9, d).
    """

    last: Tensor
    reference: Tensor
    candidates: Tensor


def see(
    model: Qwen3VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    queries: Sequence[VerifierQuery],
    drawing: np.random.Generator,
    *,
    reference_layer: int,
    candidate_layer: int,
) -> Seen:
    """Draw the pictures of queries and read them; no gradient reaches the vision tower."""
    scenes = [scene for query in queries for scene in query.scenes]
    with torch.no_grad():
        pixels, grids = patches(draw_batch(scenes, drawing))
        features = model.model.get_image_features(pixels, grids, return_dict=True)
    prefixes = [
        [tokenizer.bos_token_id, *tokenizer(query.text, add_special_tokens=False)["input_ids"]]
        for query in queries
    ]
    picture, block = (tokenizer.convert_tokens_to_ids(list(t)) for t in (_PICTURE, _BLOCK))
    longest = max(map(len, prefixes))
    pad = tokenizer.pad_token_id
    ids = torch.tensor(
        [[pad] * (longest - len(p)) + p + picture + block * CANDIDATES for p in prefixes]
    )
    prefix = longest + len(picture)
    hidden = model.model(
        input_ids=ids,
        attention_mask=_mask(ids != pad, prefix),
        position_ids=_positions(model, ids, ids != pad, prefix, grids),
        mm_encoder_outputs={"image": features},
        output_hidden_states=True,
        use_cache=False,
    )
    blocks = hidden.last_hidden_state[:, prefix:].unflatten(1, (CANDIDATES, BLOCK))
    later = hidden.hidden_states[candidate_layer][:, prefix:].unflatten(1, (CANDIDATES, BLOCK))
    earlier = hidden.hidden_states[reference_layer][:, longest:prefix]
    cells = slice(1, 1 + NUM_CELLS)
    return Seen(blocks[:, :, -1], earlier[:, cells], later[:, :, cells])


def _mask(real: Tensor, prefix: int) -> Tensor:
    """Who reads whom (B, 1, L, L): earlier tokens of the prefix and of the own candidate."""
    length = real.shape[1]
    place = torch.arange(length)
    owner = torch.where(place < prefix, -1, (place - prefix) // BLOCK)
    causal = place[:, None] >= place
    shared = (owner == -1) | (owner[:, None] == owner)
    itself = torch.eye(length, dtype=torch.bool)  # padding reads something too
    return ((causal & shared) & real[:, None, None, :]) | itself


def _positions(
    model: Qwen3VLForConditionalGeneration, ids: Tensor, real: Tensor, prefix: int, grids: Tensor
) -> Tensor:
    """Rotary positions (3, B, L): those of one candidate alone, for each of them."""
    alone = ids[:, : prefix + BLOCK]
    is_image = (alone == model.config.image_token_id).int()
    found, _ = model.model.get_rope_index(
        alone, is_image, grids[: 2 * len(ids)], attention_mask=real[:, : prefix + BLOCK]
    )
    before, block = found[..., :prefix], found[..., prefix:]
    return torch.cat([before, block.repeat(1, 1, CANDIDATES)], dim=-1)
