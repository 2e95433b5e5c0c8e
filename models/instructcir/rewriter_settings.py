"""What a rewriter's tuning is made of: hyper-parameters, the base model, and pairs to learn from.

The tuning itself, and all that it imports, is `models.instructcir.rewriter_tuning`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from models.checkpoints import loading_arguments

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ALL_PROJECTIONS: Final = (
    *("q_proj", "k_proj", "v_proj", "o_proj"),
    *("gate_proj", "up_proj", "down_proj"),
)
"""The linear layers of a LLaMA block (Vicuna's too): attention and MLP."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningConfig:
    """Hyper-parameters of a rewriter's fine-tuning.

    Attributes:
        rank: r, the inner width of every adapter.
        alpha: Adapters are scaled by alpha / r.
        dropout: On the adapters' inputs.
        targets: Names of the linear layers that get an adapter.
        learning_rate: Peak of AdamW's, without weight decay; falls to zero as a cosine.
        warmup: Fraction of the steps in which the rate rises linearly.
        clip: Largest norm of a step's gradient.
        epochs: Times that every pair is seen.
        batch_size: Pairs per optimiser step.
        micro_batch: Pairs in memory at once; gradients of a batch are summed.
        gradient_checkpointing: Compute activations twice to hold fewer of them.
        seed: Of initial weights, order and dropout.
    """

    rank: int = 16
    alpha: float = 32
    dropout: float = 0.05
    targets: tuple[str, ...] = ALL_PROJECTIONS
    learning_rate: float = 2e-4
    warmup: float = 0.03
    clip: float = 1.0
    epochs: int = 10
    batch_size: int = 64
    micro_batch: int = 8
    gradient_checkpointing: bool = False
    seed: int = 12_345

    def __post_init__(self) -> None:
        """Refuse values without a meaning."""
        if min(self.rank, self.epochs, self.batch_size, self.micro_batch) < 1:
            raise ValueError(
                f"rank, epochs, batch_size and micro_batch are at least 1, not {self!r}"
            )
        if min(self.alpha, self.learning_rate, self.clip) <= 0:
            raise ValueError(f"alpha, learning_rate and clip are positive, not {self!r}")
        if not (0 <= self.dropout < 1 and 0 <= self.warmup <= 1):
            raise ValueError(f"dropout lies in [0, 1) and warmup in [0, 1], not {self!r}")

    def steps_on(self, pairs: int) -> int:
        """Optimiser steps on that many pairs; an epoch's last batch may be smaller."""
        return self.epochs * math.ceil(pairs / self.batch_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """The causal language model that is tuned, and where that happens.

    Attributes:
        model: Directory or hub id.
        revision: Hub revision; empty for a directory.
        chat: `auto` wraps prompts in the tokenizer's chat template if there is one; `never` does
            not. The tuned model must be asked in the same form.
        device: `auto`, `cpu`, `cuda`, ...
        dtype: Of the frozen weights: `auto` (bfloat16 on a GPU, else float32) or a name. The
            adapter is trained in float32.
    """

    model: str
    revision: str = ""
    chat: str = "auto"
    device: str = "auto"
    dtype: str = "auto"

    @property
    def dtype_name(self) -> str:
        """What `auto` means here."""
        return str(self._torch_dtype()).removeprefix("torch.")

    def load_weights(self) -> PreTrainedModel:
        """The model, on the CPU."""
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(
            self.model,
            dtype=self._torch_dtype(),
            **loading_arguments(self.model, self.revision),
        )

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(
            self.model, **loading_arguments(self.model, self.revision)
        )

    def _torch_dtype(self) -> torch.dtype:
        from models.devices import pick_device, pick_dtype

        return pick_dtype(self.dtype, pick_device(self.device))


@dataclass(frozen=True, slots=True)
class Example:
    """A complete prompt, already rendered, and the answer that the model shall give."""

    prompt: str
    answer: str
