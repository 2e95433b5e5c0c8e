"""Stage one as Lightning trains it: the query path against targets of the moving average.

    z_i = network(reference_i, text_i)
    t_i = average(target_i, null text), without gradient
    loss = contrastive loss of z against the targets of all devices (eq. 2)

After each optimiser step the average takes a step towards the network. Without EMA the network
encodes the targets itself and learns through both sides. Dropout and whatever else is random in
a step follows from (seed, step, rank) alone, so no random state has to be kept: a resumed run
repeats what an undisturbed one does.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from models.instructcir.ema import EmaTarget
from models.instructcir.loss import Temperature, contrastive_loss
from models.instructcir.network import ReformulationNetwork
from models.instructcir.schedules import rate_factor
from models.instructcir.settings import EmaSettings, LossSettings
from models.instructcir.training_settings import TrainingSettings
from models.random_streams import stream_seed

_RANKS: Final = 4_096


class ReformulationModule(LightningModule):
    """The network, its moving average and how both change in a step.

    Attributes:
        network: The network that is trained.
        ema: Its moving average, or None for the ablation without.
        step_loss: Loss of the last batch, without gradient.
        step_norm: Norm of the last gradient before it was clipped.
    """

    def __init__(
        self,
        network: ReformulationNetwork,
        *,
        loss: LossSettings,
        ema: EmaSettings,
        training: TrainingSettings,
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
        super().__init__()
        self.network = network.train()
        self.temperature = Temperature(loss)
        self.ema = EmaTarget(network, ema) if ema.enabled else None
        self._loss_settings = loss
        self._targets_learn = not ema.enabled and ema.without == "shared"
        self.training_settings = training
        self.total_steps = total_steps
        network.set_gradient_checkpointing(training.gradient_checkpointing)
        self._sharded = False
        config = network.parts.preprocess.config
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)
        self.step_loss = torch.tensor(0.0)
        self.step_norm = torch.tensor(0.0)

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
        compiled = self.training_settings.compile
        self._query = torch.compile(query) if compiled else query
        self._target = torch.compile(target) if compiled else target

    def pixels(self, images: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 -> normalised (B, 3, H, W) float32."""
        values = images.permute(0, 3, 1, 2).float().div_(255)
        return values.sub_(self.mean).div_(self.std).contiguous()

    def on_train_batch_start(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        """Seed whatever is random in this batch."""
        stream = batch_idx * _RANKS + self.global_rank
        torch.manual_seed(stream_seed(self.training_settings.seed, stream))

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        """The loss of a batch; see `models.instructcir.batches.Batch` for its parts."""
        queries = self._query(self.pixels(batch["references"]), batch["texts"]).z
        with torch.set_grad_enabled(self._targets_learn):
            targets = self._target(self.pixels(batch["targets"]))
        learned = self.temperature() if self._loss_settings.learnable_temperature else None
        loss = contrastive_loss(queries, targets, batch["target_ids"], self._loss_settings, learned)
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

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm of the whole gradient, also where it is sharded."""
        limit = self.training_settings.clip or float("inf")
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(trained, limit)
        self.step_norm = norm.full_tensor() if isinstance(norm, DTensor) else norm

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the optimiser's parameters: numbers mean another order where weights are sharded."""
        if self._sharded:
            return  # numbered in the order of the module, as such a run reads numbers
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        optimizer = self.trainer.optimizers[0]
        ordered = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
        (state,) = checkpoint["optimizer_states"]
        state["state"] = {ordered[number]: each for number, each in state["state"].items()}
        for group in state["param_groups"]:
            group["params"] = [ordered[number] for number in group["params"]]

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW with a rate for old and one for new layers, warm-up and cosine."""
        settings = self.training_settings
        optimizer = torch.optim.AdamW(self._parameter_groups())
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_factor(step, self.total_steps, settings.warmup)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _parameter_groups(self) -> list[dict[str, Any]]:
        settings = self.training_settings
        groups = [
            {
                "name": group.name,
                "params": list(group.parameters),
                "lr": settings.new_learning_rate if group.new else settings.learning_rate,
                "weight_decay": settings.weight_decay if group.decay else 0.0,
            }
            for group in self.network.parameter_groups()
        ]
        if self._loss_settings.learnable_temperature:
            groups.append(
                {
                    "name": "temperature",
                    "params": [self.temperature.log_scale],
                    "lr": settings.new_learning_rate,
                    "weight_decay": 0.0,
                }
            )
        return groups
