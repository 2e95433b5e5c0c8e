"""What both verifiers' language models share in training: a frozen tower, heads, optimisers."""

from typing import Any

import torch
from torch import nn
from transformers import Qwen3VLForConditionalGeneration

from embedded_world.recipes.muon import Muon
from embedded_world.recipes.training import Schedule, packed, unpacked


class LanguageLearner:
    """A verifier with a frozen vision tower, heads that are thrown away, and both optimisers."""

    def __init__(
        self, model: Qwen3VLForConditionalGeneration, heads: nn.ModuleDict, schedule: Schedule
    ) -> None:
        """Prepare step 0.

        Args:
            model: Its vision tower is trained.
            heads: Read attributes out of hidden states.
            schedule: Length of the run, and the rate of each step.
        """
        self.model, self.heads, self.schedule = model, heads, schedule
        self.step = 0
        self.curve: list[dict[str, float]] = []
        model.model.visual.requires_grad_(False)
        language = model.model.language_model
        matrices = [p for p in language.layers.parameters() if p.ndim == 2]
        vectors = [p for p in language.parameters() if p.ndim < 2]
        rest = [*vectors, language.embed_tokens.weight, *heads.parameters()]
        self._trained = matrices + rest
        self.muon = Muon(matrices)
        self.adam = torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.schedule.steps

    def save(self) -> bytes:
        """Weights, state of the optimisers, curve, step, length of the run."""
        return packed(
            step=self.step,
            steps=self.steps,
            curve=self.curve,
            model=self.model.state_dict(),
            heads=self.heads.state_dict(),
            muon=self.muon.buffers,
            adam=self.adam.state_dict(),
        )

    def load(self, data: bytes) -> None:
        """Continue from saved data."""
        self._continue_from(unpacked(data))

    def _continue_from(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.muon.buffers = state["muon"]
        self.adam.load_state_dict(state["adam"])
        self.step, self.curve = state["step"], state["curve"]
