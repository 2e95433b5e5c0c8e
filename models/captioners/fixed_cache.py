"""A key-value cache in memory of one size, so that no token costs a copy of all tokens before it.

The growing cache of transformers is joined again at each step: what a caption of T tokens copies
grows with T squared. The library's `StaticCache` has fixed memory too, but attends to all of it,
with its unused end masked: rounding differs, and may tip an almost exact tie. Here attention sees
exactly the tokens that are there, so that logits are those of the growing cache.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicLayer


class FixedLayer(DynamicLayer):
    """One layer of the cache: keys and values (R, heads, length, width) are views of its memory.

    It cannot be cropped or reset.
    """

    def __init__(self, layer: DynamicLayer, repeats: int, room: int) -> None:
        """Take over what a layer holds.

        Args:
            layer: Filled by the prompt.
            repeats: Copies of each of its lines.
            room: Tokens that the memory has room for.
        """
        super().__init__()
        self.lazy_initialization(layer.keys, layer.values)
        self._memory = [_with_room(each, repeats, room) for each in (layer.keys, layer.values)]
        self._show(layer.keys.shape[-2])

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Add tokens behind those that are there; returns the keys and values of all."""
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        for memory, states in zip(self._memory, (key_states, value_states), strict=True):
            memory[..., start:end, :] = states
        self._show(end)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some lines."""
        length = self.get_seq_length()
        self._memory = [each[indices] for each in self._memory]
        self._show(length)

    def _show(self, length: int) -> None:
        self.keys, self.values = (each[..., :length, :] for each in self._memory)


def with_room(cache: Cache, repeats: int, tokens: int) -> None:
    """Repeat the lines of a cache, and give it room for so many tokens more.

    Layers of other kinds (with a sliding window, for example) are repeated, and go on growing.
    """
    for place, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[place] = FixedLayer(layer, repeats, layer.get_seq_length() + tokens)
        elif repeats > 1:
            layer.batch_repeat_interleave(repeats)


def _with_room(held: Tensor, repeats: int, room: int) -> Tensor:
    lines, heads, length, width = held.shape
    memory = torch.empty(
        (lines * repeats, heads, room, width), dtype=held.dtype, device=held.device
    )
    memory.view(lines, repeats, heads, room, width)[..., :length, :] = held[:, None]
    return memory
