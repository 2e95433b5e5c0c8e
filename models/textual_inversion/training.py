"""LinCIR: train a mapping network on captions alone (Gu et al., CVPR 2024).

Self-masking projection: with e = f_t(caption), the network reads e with noise and writes the
pseudo token that replaces the caption's keywords; the masked caption must then mean the same:

    p  = phi(e + u * eps),   u ~ U(0, 1) a scalar per caption,  eps ~ N(0, I)
    e' = f_t(caption with p in the place of every keyword)
    loss = mean squared error of e' and e, neither normalised

The text tower is frozen, so e is computed once per caption. Batches, noise and dropout follow
from (seed, step) alone: a run that is stopped and resumed ends with the weights of one that was
not.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from models.encoders.text_tower import TextTower, pad_rows
from models.random_streams import random_stream
from models.textual_inversion.mapping_files import MappingShape
from models.textual_inversion.masking import TrainingRow
from models.textual_inversion.network import MappingNetwork, new_module
from models.textual_inversion.settings import LinCirConfig

logger = logging.getLogger(__name__)


class LinCirTraining:
    """A training run: make it, `run` it, `save` and `load` it in between as you like.

    Attributes:
        losses: Of the steps that this object has taken; a loaded state brings none.
    """

    def __init__(self, config: LinCirConfig, tower: TextTower, rows: Sequence[TrainingRow]) -> None:
        """Prepare a run from step 0.

        Args:
            config: Hyper-parameters.
            tower: Frozen text tower; training happens where it lies.
            rows: Training captions, whole and masked; see `models.textual_inversion.masking`.
        """
        if not rows:
            raise ValueError("there is no caption to train on")
        self.config = config
        self.tower = tower.eval().requires_grad_(False)
        self._masked = [row.masked for row in rows]
        self._features = torch.from_numpy(tower.encode_rows([row.whole for row in rows]))
        self._device = tower.positional.device
        self._batch = min(config.batch_size, len(rows))
        self.shape = MappingShape.phi(
            self._features.shape[1], tower.width, config.dropout, config.normalise_input
        )
        with random_stream(config.seed, 0, self._device):
            self.module: nn.Module = new_module(self.shape).to(self._device)
        self.optimizer = torch.optim.AdamW(
            self.module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.step = 0
        self.losses: list[float] = []
        self._epoch = -1
        self._order = np.arange(0)

    @property
    def done(self) -> bool:
        """Whether all steps were taken."""
        return self.step >= self.config.steps

    def run(self, until: int | None = None) -> float:
        """Train up to step `until`, or to the end; returns the last step's loss."""
        until = self.config.steps if until is None else min(until, self.config.steps)
        loss = math.nan
        self.module.train()
        while self.step < until:
            loss = self._take_step()
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"the loss is {loss} at step {self.step}; lower the learning rate "
                    f"({self.config.learning_rate}) or check the text tower's weights"
                )
            self.losses.append(loss)
        return loss

    def network(self) -> MappingNetwork:
        """The network as it is now, a copy in evaluation mode."""
        module = new_module(self.shape)
        module.load_state_dict({k: v.detach().cpu() for k, v in self.module.state_dict().items()})
        return MappingNetwork(self.shape, module.eval().requires_grad_(False))

    def save(self) -> bytes:
        """The state to resume from, readable with `weights_only=True`."""
        buffer = io.BytesIO()
        torch.save(
            {
                "step": self.step,
                "identity": self._identity(),
                "module": self.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
            buffer,
        )
        return buffer.getvalue()

    def load(self, data: bytes) -> None:
        """Resume from a state of `save`.

        Raises:
            ValueError: The state belongs to a run with other settings or captions.
        """
        state: dict[str, Any] = torch.load(
            io.BytesIO(data), map_location=self._device, weights_only=True
        )
        if state.get("identity") != self._identity():
            raise ValueError(
                f"this training state belongs to another run: {state.get('identity')}, "
                f"not {self._identity()}; start again, or restore the settings and captions"
            )
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])
        self.losses = []

    def _identity(self) -> list[Any]:
        # Steps may grow from run to run; everything else must be the same.
        c = self.config
        numbers = [c.batch_size, c.learning_rate, c.weight_decay, c.dropout, c.noise]
        return [c.seed, c.normalise_input, *numbers, len(self._masked), self.shape.dim_in]

    def _take_step(self) -> float:
        chosen = self._members(self.step)
        wanted = self._features[chosen].to(self._device)
        ids, lengths, holes = (part.to(self._device) for part in self._padded(chosen))
        with random_stream(self.config.seed, self.step + 1, self._device):
            factor = torch.rand(len(chosen), 1, device=self._device) * self.config.noise
            noisy = wanted + factor * torch.randn_like(wanted)
            if self.config.normalise_input:
                noisy = functional.normalize(noisy, dim=-1)
            tokens = self.module(noisy)
        loss = functional.mse_loss(self.tower(ids, lengths, holes, tokens).float(), wanted)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return float(loss.detach())

    def _padded(self, chosen: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return pad_rows([self._masked[i] for i in chosen])

    def _members(self, step: int) -> np.ndarray:
        """Captions of a step: each epoch a new order, its incomplete last batch left out."""
        per_epoch = len(self._masked) // self._batch
        epoch, place = divmod(step, per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng((self.config.seed, epoch)).permutation(
                len(self._masked)
            )
        return self._order[place * self._batch : (place + 1) * self._batch]
