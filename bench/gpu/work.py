"""How many operations and bytes models ask for at least.

Towers are counted as they run, with nothing fused; language models by their sizes, since a count
of hundreds of steps would take longer than the steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def counted_flops(run: Callable[[], object]) -> int:
    """Operations of matrix products and attention while `run` runs, as carried out."""
    # Fused attention is counted on some devices and not on others, and torch's shortcut for layers
    # in evaluation on none; written out, attention is counted everywhere.
    shortcut = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            run()
    finally:
        torch.backends.mha.set_fastpath_enabled(shortcut)
    return int(counter.get_total_flops())


def weight_bytes(*modules: nn.Module) -> int:
    """Bytes of all parameters, each counted once."""
    found = {id(p): p.numel() * p.element_size() for m in modules for p in m.parameters()}
    return sum(found.values())


@dataclass(frozen=True, slots=True)
class Decoder:
    """Sizes of a decoder-only language model.

    Attributes:
        layers: Blocks.
        width: Of the hidden states.
        hidden: Of the MLP.
        gated: Whether the MLP has a gate (three products instead of two).
        kv_width: Width of keys and of values.
        words: Rows of the vocabulary.
        element: Bytes of a number.
    """

    layers: int
    width: int
    hidden: int
    gated: bool
    kv_width: int
    words: int
    element: int

    @classmethod
    def of(cls, config: Any, element: int) -> Decoder:
        """The sizes of an OPT or a LLaMA, by its configuration."""
        heads = config.num_attention_heads
        gated = config.model_type == "llama"
        return cls(
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            hidden=config.intermediate_size if gated else config.ffn_dim,
            gated=gated,
            kv_width=config.hidden_size // heads * getattr(config, "num_key_value_heads", heads),
            words=config.vocab_size,
            element=element,
        )

    @property
    def block_weights(self) -> int:
        """Numbers in the matrices of all blocks."""
        attention = 2 * self.width * self.width + 2 * self.width * self.kv_width
        return self.layers * (attention + (3 if self.gated else 2) * self.width * self.hidden)

    def flops(self, start: int, end: int, predicted: int = 1) -> float:
        """Operations for one row's tokens `start` to `end`, of which some predict a word each.

        A token attends to itself and to those before it.
        """
        tokens = end - start
        seen = (start + 1 + end) * tokens / 2
        products = 2.0 * tokens * self.block_weights + 2.0 * predicted * self.width * self.words
        return products + 4.0 * self.layers * self.width * seen

    def answer_flops(self, prompt: int, answer: int, answers: int = 1) -> float:
        """Operations of `answers` answers of so many tokens to a prompt that is read once."""
        if not answer:
            return 0.0
        steps = self.flops(prompt, prompt + answer - 1, predicted=answer - 1)
        return self.flops(0, prompt) + answers * steps

    def answer_bytes(self, rows: int, prompt: int, answer: int) -> float:
        """Bytes read for so many rows in one batch: weights once a step, and each row's cache.

        The first word follows from reading the prompt, which reads the weights too.
        """
        weights = self.element * (self.block_weights + self.width * self.words)
        cache = 2 * self.element * self.layers * self.kv_width
        seen = sum(range(prompt + 1, prompt + answer))
        return float(answer * weights + rows * cache * seen)
