"""The moving average of the network that encodes targets, with I-JEPA's schedule."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from models.instructcir.settings import EmaSettings

if TYPE_CHECKING:
    from models.instructcir.network import ReformulationNetwork


def momentum(settings: EmaSettings, step: int, total_steps: int) -> float:
    """Momentum of optimiser step `step`: linear from `start` at 0 to `end` at `total_steps`.

    Args:
        settings: Both ends.
        step: Steps taken before this one, 0 for the first.
        total_steps: Optimiser steps of the whole run.

    Raises:
        ValueError: The step lies outside the run.
    """
    if not 0 <= step <= total_steps or total_steps < 1:
        raise ValueError(f"step {step} lies outside a run of {total_steps} steps")
    return settings.start + (settings.end - settings.start) * step / total_steps


class EmaTarget(nn.Module):
    """A slow copy of the network: parameters averaged in fp32, buffers copied.

    As a module it travels with the module that holds it: to its device and into its state.
    """

    def __init__(self, network: ReformulationNetwork, settings: EmaSettings | None = None) -> None:
        """Copy a network exactly; nothing in the copy is trained."""
        super().__init__()
        self.settings = settings or EmaSettings()
        self.network: ReformulationNetwork = copy.deepcopy(network).float()
        self.network.requires_grad_(False)
        self.network.set_gradient_checkpointing(False)
        self.network.eval()

    def train(self, mode: bool = True) -> EmaTarget:
        """The average is always in evaluation mode, whatever its holder is told."""
        return super().train(False)

    @torch.no_grad()
    def update(self, network: ReformulationNetwork, step: int, total_steps: int) -> None:
        """Follow the network after an optimiser step: shadow <- m shadow + (1 - m) weights.

        Args:
            network: The network that was stepped, of the architecture that was copied.
            step: Steps taken before this one, 0 for the first.
            total_steps: Optimiser steps of the whole run.
        """
        pairs = [
            (shadow, online.detach().to(shadow.dtype))
            for shadow, online in zip(self.network.parameters(), network.parameters(), strict=True)
            if online.requires_grad  # a frozen parameter is its own average
        ]
        weight = 1.0 - momentum(self.settings, step, total_steps)
        shadows, onlines = [list(side) for side in zip(*pairs, strict=True)]
        torch._foreach_lerp_(shadows, onlines, weight)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)
