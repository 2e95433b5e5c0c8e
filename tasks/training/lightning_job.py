"""A training that Lightning runs: what is built, from what, and where its state is kept."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.training.folder import TrainingFolder
from tasks.training.publish import Job

if TYPE_CHECKING:
    from models.training.batches import TrainingData
    from models.training.lightning_module import TrainedModule
    from models.training.settings import CommonTraining
    from tasks.training.run_settings import RunSettings


@dataclass(frozen=True)
class LightningJob(Job):
    """A job whose network Lightning trains, in this process or in several."""

    @property
    @abstractmethod
    def settings(self) -> CommonTraining:
        """Of the training."""

    @abstractmethod
    def new_network(self) -> Any:
        """The network as training begins with it."""

    @abstractmethod
    def load_data(self, run: RunSettings, network: Any) -> TrainingData:
        """The examples, as the network reads them."""

    def made_ready(self, data: Any, run: RunSettings, network: Any) -> TrainingData:
        """The examples as steps read them, in each process that trains; here as they are."""
        return data

    @abstractmethod
    def module(self, network: Any, steps: int) -> TrainedModule:
        """The network with its moving parts, for a run of so many optimiser steps."""

    @abstractmethod
    def examples(self) -> int:
        """Training examples, before unreadable images are left out."""

    def amounts(self) -> tuple[int, int]:
        """Optimiser steps, and the cost of what follows them in such steps, for progress bars."""
        return self.settings.steps_of(self.examples())[1], 0

    @property
    def training_folder(self) -> TrainingFolder:
        """Where the state is kept while it trains."""
        return TrainingFolder(self.root, f"training/{self.KIND}/{self.key}")
