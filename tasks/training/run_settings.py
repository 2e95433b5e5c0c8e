"""Where and how fast a training runs."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from models.devices import require_device
from models.settings import Settings

if TYPE_CHECKING:
    import torch


class RunSettings(Settings):
    """Where and how fast a training runs; nothing here changes its result on one machine."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Hardware to train on."""
    devices: int = Field(1, ge=1)
    """GPUs (or CPU processes) that share each batch."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """How several devices share the work: `ddp` copies the weights, `fsdp` shards them."""
    workers: int = Field(0, ge=0)
    """Threads of each device that prepare batches ahead."""
    cache_mb: int = Field(2048, ge=0)
    """MiB for decoded pictures: memory of one process, or a file that the processes of several
    devices share. As much again in each is for pictures to validate with where crops are random,
    and else for what a frozen image tower makes of the pictures, once."""
    log_steps: int = Field(10, ge=1)
    """Steps between two points of the curves."""
    save_steps: int = Field(1000, ge=1)
    """Most steps between two saved states."""
    save_seconds: float = Field(300.0, ge=0)
    """Most seconds between two saved states."""
    loggers: tuple[Literal["csv", "tensorboard", "wandb", "mlflow", "comet"], ...] = (
        "csv",
        "tensorboard",
    )
    """Lightning loggers that record the run."""

    def require_host(self) -> None:
        """Refuse hardware that is not there; nothing heavy is imported.

        Raises:
            ValueError: GPUs are asked for, and torch sees fewer.
        """
        if self.accelerator == "gpu" and sys.platform != "darwin":
            require_device(f"cuda:{self.devices - 1}")

    def device(self) -> torch.device:
        """Where this process computes what no Lightning module does."""
        from models.devices import pick_device

        found = pick_device("cpu" if self.accelerator == "cpu" else "auto")
        rank = os.environ.get("LOCAL_RANK")  # Lightning's, in each process of several devices
        return pick_device(f"cuda:{rank}") if rank and found.type == "cuda" else found
