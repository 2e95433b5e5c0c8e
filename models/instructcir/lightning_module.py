"""Stage one as Lightning trains it: the query path against targets of the moving average.

    z_i = network(reference_i, text_i)
    t_i = average(target_i, null text), without gradient
    loss = contrastive loss of z against the targets of all devices (eq. 2)

After each optimiser step the average takes a step towards the network. Without EMA the network
encodes the targets itself and learns through both sides.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from models.instructcir.ema import EmaTarget, momentum
from models.instructcir.loss import Temperature
from models.instructcir.network import ReformulationNetwork
from models.instructcir.settings import EmaSettings, LossSettings
from models.instructcir.step import step_loss
from models.instructcir.training_settings import ReformulationTraining
from models.instructcir.validation import validate, validation_row
from models.training.lightning_module import TrainedModule
from models.training.trainable import ParameterGroup
from models.training.triplet_data import TripletData


class ReformulationModule(TrainedModule):
    """The network, its moving average and how both change in a step.

    Attributes:
        network: The network that is trained.
        ema: Its moving average, or None for the ablation without.
    """

    def __init__(
        self,
        network: ReformulationNetwork,
        *,
        loss: LossSettings,
        ema: EmaSettings,
        training: ReformulationTraining,
        total_steps: int,
    ) -> None:
        """Prepare a run from step 0.

        Args:
            network: As built, on the CPU.
            loss: Of the contrastive loss.
            ema: Of the moving average.
            training: Optimiser, schedule, precision.
            total_steps: Optimiser steps in all.
        """
        super().__init__(training, total_steps, network.parts.preprocess)
        self.network = network.train()
        self.temperature = Temperature(loss)
        self.ema = EmaTarget(network, ema) if ema.enabled else None
        self._loss_settings = loss
        self._branch = training.branch
        self._targets_learn = not ema.enabled and ema.without == "shared"
        network.set_gradient_checkpointing(training.gradient_checkpointing)

    @property
    def target_network(self) -> ReformulationNetwork:
        """The network that encodes targets."""
        return self.network if self.ema is None else self.ema.network

    def configure_model(self) -> None:
        """Share the weights out over the devices where the strategy says so; then compile.

        The network and its average are cut alike, parameter by parameter, so that the average
        follows on each device's own part. A parameter is whole only while its layer computes,
        also where no backward pass comes after.
        """
        if self.device_mesh is not None and not self._sharded:
            mesh = self.device_mesh["data_parallel"]
            networks = [self.network] if self.ema is None else [self.network, self.ema.network]
            for network in networks:
                for block in network.blocks:
                    fully_shard(block, mesh=mesh, reshard_after_forward=True)
                fully_shard(network, mesh=mesh, reshard_after_forward=True)
                for method in ("query", "target"):
                    register_fsdp_forward_method(network, method)
            fully_shard(self.temperature, mesh=mesh, reshard_after_forward=True)
            self._sharded = True
        query, target = self.network.query, self.target_network.target
        compiled = self.settings.compile
        self._query = torch.compile(query) if compiled else query
        self._target = torch.compile(target) if compiled else target

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """The loss of a batch; see `models.training.batches.Batch` for its parts."""
        pixels = {name: self.pixels(batch[name]) for name in ("references", "targets")}
        loss = step_loss(
            self._query,
            self._target,
            batch | pixels,
            self._loss_settings,
            scale=self.temperature() if self._loss_settings.learnable_temperature else None,
            targets_learn=self._targets_learn,
        )
        self.step_loss = loss.detach()
        return loss

    def validation_step(
        self, batch: dict[str, torch.Tensor], batch_idx: int
    ) -> dict[str, torch.Tensor]:
        """Queries of both branches, and targets, each (B, d) float32."""
        references = self.pixels(batch["references"])
        found = {
            "online": self.network.query(references, batch["texts"]).z.float(),
            "target": self.target_network.target(self.pixels(batch["targets"])).float(),
        }
        if self.ema is not None:
            found["ema"] = self.ema.network.query(references, batch["texts"]).z.float()
        return found

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, keep the temperature in its bounds, and let the average follow."""
        super().optimizer_step(*args, **kwargs)
        self.temperature.keep_in_bounds()
        if self.ema is not None:
            # Lightning counts the step after this hook.
            self.ema.update(self.network, self.trainer.global_step, self.total_steps)

    def trained_groups(self) -> list[ParameterGroup]:
        """The network's, and a learned temperature."""
        groups = list(self.network.parameter_groups())
        if self._loss_settings.learnable_temperature:
            scale = (self.temperature.log_scale,)
            groups.append(ParameterGroup("temperature", new=True, decay=False, parameters=scale))
        return groups

    def validated(self, trainer: Trainer, data: TripletData) -> dict[str, float]:
        """Recall by branch."""
        return validation_row(validate(trainer, self, data), self._branch)

    def step_row(self, trainer: Trainer) -> dict[str, float]:
        """With temperature and momentum."""
        row = super().step_row(trainer)
        row["temperature"] = 1.0 / float(self.temperature().detach())
        if self.ema is not None:
            taken = trainer.global_step - 1
            row["momentum"] = momentum(self.ema.settings, taken, self.total_steps)
        return row
