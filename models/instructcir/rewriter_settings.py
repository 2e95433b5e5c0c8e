"""Inputs of a rewriter's tuning: hyper-parameters, the base model, and pairs to learn from.

The tuning itself, and all that it imports, is `models.instructcir.rewriter_tuning`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import Field

from models.devices import pick_dtype, torch_dtype_name
from models.protocols import AutoDtype, DeviceName
from models.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ALL_PROJECTIONS: Final = (
    *("q_proj", "k_proj", "v_proj", "o_proj"),
    *("gate_proj", "up_proj", "down_proj"),
)
"""The linear layers of a LLaMA block (Vicuna's too): attention and MLP."""


class TuningConfig(Settings):
    """Hyper-parameters of a rewriter's fine-tuning."""

    rank: int = Field(16, ge=1)
    """r, the inner width of every adapter."""
    alpha: float = Field(32, gt=0)
    """Adapters are scaled by alpha / r."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """On the adapters' inputs."""
    targets: tuple[str, ...] = ALL_PROJECTIONS
    """Names of the linear layers that get an adapter."""
    learning_rate: float = Field(2e-4, gt=0)
    """Peak of AdamW's, without weight decay; falls to zero as a cosine."""
    warmup: float = Field(0.03, ge=0, le=1)
    """Fraction of the steps in which the rate rises linearly."""
    clip: float = Field(1.0, gt=0)
    """Largest norm of a step's gradient."""
    epochs: int = Field(10, ge=1)
    """Times that every pair is seen."""
    batch_size: int = Field(64, ge=1)
    """Pairs per optimiser step."""
    micro_batch: int = Field(8, ge=1)
    """Pairs in memory at once; gradients of a batch are summed."""
    gradient_checkpointing: bool = False
    """Compute activations twice to hold fewer of them."""
    seed: int = 12_345
    """Of initial weights, order and dropout."""

    def steps_on(self, pairs: int) -> int:
        """Optimiser steps on that many pairs; an epoch's last batch may be smaller."""
        return self.epochs * math.ceil(pairs / self.batch_size)


class BaseLlm(Settings):
    """The causal language model that is tuned, and where that happens."""

    model: str
    """Directory or hub id."""
    revision: str = ""
    """Hub revision; empty for a directory."""
    chat: str = "auto"
    """`auto` wraps prompts in the tokenizer's chat template if there is one; `never` does not. The
    tuned model must be asked in the same form."""
    device: DeviceName = "auto"
    """`auto`, `cpu`, `cuda`, ..."""
    dtype: AutoDtype = "auto"
    """Of the frozen weights: `auto` (bf16 on a GPU, else fp32) or a name. The adapter is trained in
    fp32."""

    @property
    def dtype_name(self) -> str:
        """The dtype that `auto` stands for on this machine."""
        return torch_dtype_name(self.dtype, self.device)

    def load_weights(self) -> PreTrainedModel:
        """The model, on the CPU."""
        from transformers import AutoModelForCausalLM

        from models.loaded_weights import load_model

        dtype = pick_dtype(self.dtype, self.device)
        model: PreTrainedModel = load_model(
            AutoModelForCausalLM, self.model, self.revision, dtype=dtype
        )
        return model

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer."""
        from transformers import AutoTokenizer

        from models.loaded_weights import load_processor

        tokenizer: PreTrainedTokenizerBase = load_processor(
            AutoTokenizer, self.model, self.revision
        )
        return tokenizer


@dataclass(frozen=True, slots=True)
class Example:
    """A complete prompt, already rendered, and the answer that the model shall give."""

    prompt: str
    answer: str
