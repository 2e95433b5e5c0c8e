"""The Lightning side of every training: seeds, steps, clipping, rates, and a portable state.

Dropout and whatever else is random in a step follows from (seed, step, rank) alone, so no random
state has to be kept: a resumed run repeats what an undisturbed one does.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from models.random_streams import stream_seed
from models.training.batches import Batch, TrainingData
from models.training.schedules import rate_factor
from models.training.settings import CommonTraining, TrainingSettings
from models.training.step_measures import checked_loss, rates_of
from models.training.trainable import ParameterGroup, Trainable

if TYPE_CHECKING:
    from models.encoders.preprocess import ImagePreprocess

_RANKS: Final = 4_096


class TrainedModule(LightningModule):
    """What is trained, and how it changes in a step.

    Attributes:
        settings: Of the training.
        total_steps: Optimiser steps in all.
        step_loss: Loss of the last batch, without gradient.
        step_norm: Norm of the last gradient before it was clipped.
    """

    def __init__(
        self,
        settings: CommonTraining,
        total_steps: int,
        preprocess: ImagePreprocess | None = None,
    ) -> None:
        """Prepare a run from step 0.

        Args:
            settings: Of the training.
            total_steps: Optimiser steps in all.
            preprocess: Gives the mean and deviation of pixels, where batches hold pictures.
        """
        super().__init__()
        self.settings = settings
        self.total_steps = total_steps
        self._sharded = False
        self.step_loss = torch.tensor(0.0)
        self.step_norm = torch.tensor(0.0)
        if preprocess is not None:
            for name in ("mean", "std"):
                values = torch.tensor(getattr(preprocess.config, name)).view(1, 3, 1, 1)
                self.register_buffer(name, values, persistent=False)

    def pixels(self, images: torch.Tensor) -> torch.Tensor:
        """(B, H, W, 3) uint8 -> normalised (B, 3, H, W) float32."""
        values = images.permute(0, 3, 1, 2).float().div_(255)
        return values.sub_(self.mean).div_(self.std).contiguous()

    @abstractmethod
    def trained_groups(self) -> Sequence[ParameterGroup]:
        """The trained parameters."""

    @abstractmethod
    def validated(self, trainer: Trainer, data: TrainingData) -> dict[str, float]:
        """Measures of the held-out examples, `score` among them."""

    def step_row(self, trainer: Trainer) -> dict[str, float]:
        """The curves' values of the last step."""
        return {
            "loss": checked_loss(trainer, self.step_loss),
            **rates_of(trainer, self._rate),
            "gradient_norm": float(self.step_norm),
        }

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed whatever is random in this batch."""
        stream = batch_idx * _RANKS + self.global_rank
        torch.manual_seed(stream_seed(self.settings.seed, stream))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the norm of the whole gradient, also where it is sharded."""
        limit = self.settings.clip or float("inf")
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
        """AdamW with a rate for old and one for new layers, warm-up and the schedule."""
        settings = self.settings
        groups = [
            {
                "name": group.name,
                "params": list(group.parameters),
                "lr": settings.new_learning_rate if group.new else settings.learning_rate,
                "weight_decay": settings.weight_decay if group.decay else 0.0,
            }
            for group in self.trained_groups()
        ]
        more: dict[str, Any] = {}
        if isinstance(settings, TrainingSettings):
            more = {"betas": settings.betas, "eps": settings.eps}
        optimizer = torch.optim.AdamW(groups, **more)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _rate(self, step: int) -> float:
        """The rate of a step as a share of its highest value."""
        settings = self.settings
        falls = not isinstance(settings, TrainingSettings) or settings.schedule == "cosine"
        return rate_factor(step, self.total_steps, settings.warmup, falls)


class SystemModule(TrainedModule):
    """A `Trainable` in training; pictures of a batch are normalised on the device.

    Attributes:
        network: What is trained.
    """

    def __init__(
        self,
        network: Trainable,
        settings: CommonTraining,
        total_steps: int,
        preprocess: ImagePreprocess | None = None,
    ) -> None:
        """Prepare a run of a network as built, on the CPU; see `TrainedModule`."""
        super().__init__(settings, total_steps, preprocess)
        self.network = network.train()
        if settings.gradient_checkpointing:
            network.set_gradient_checkpointing(True)

    def configure_model(self) -> None:
        """Share the weights out over the devices where the strategy says so; then compile."""
        if self.device_mesh is not None and not self._sharded:
            mesh = self.device_mesh["data_parallel"]
            fully_shard(self.network, mesh=mesh, reshard_after_forward=True)
            for method in ("loss", "held_out"):
                register_fsdp_forward_method(self.network, method)
            self._sharded = True
        loss = self.network.loss
        self._loss = torch.compile(loss) if self.settings.compile else loss

    def trained_groups(self) -> Sequence[ParameterGroup]:
        """The network's own."""
        return self.network.parameter_groups()

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """The loss of a batch."""
        loss = self._loss(self._read(batch))
        self.step_loss = loss.detach()
        return loss

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, and tell the network."""
        super().optimizer_step(*args, **kwargs)
        # Lightning counts the step after this hook.
        self.network.after_step(self.trainer.global_step + 1, self.total_steps)

    def validated(self, trainer: Trainer, data: TrainingData) -> dict[str, float]:
        """Every process measures all held-out examples."""
        self.eval()
        batches = data.held_out_batches(self.settings.batch_size)
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            found = self.network.held_out(
                self._read(trainer.strategy.batch_to_device(each)) for each in batches
            )
        self.train()
        return found

    def step_row(self, trainer: Trainer) -> dict[str, float]:
        """With the network's own measures."""
        return super().step_row(trainer) | self.network.step_measures()

    def _read(self, batch: Batch) -> Batch:
        """A batch with its pictures as the network reads them."""
        return {
            name: self.pixels(values) if values.dtype == torch.uint8 else values
            for name, values in batch.items()
        }
