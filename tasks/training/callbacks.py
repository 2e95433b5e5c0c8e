"""Lightning callback between two steps: logs, validation, the best weights, the saved state."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger

from models.training.batches import TrainingData
from models.training.lightning_module import TrainedModule
from models.training.step_measures import check_weights, checked_loss
from models.training.weight_files import save_weights
from tasks.training.folder import CHECKPOINT, SLOTS, History, TrainingFolder

Report = Callable[[int, int, float], None]
"""Called after each optimiser step with steps done, steps in all, and the last logged loss."""


@dataclass(frozen=True)
class Pace:
    """How often things happen; none of it changes the weights.

    Attributes:
        log_steps: Steps between two points of the curves.
        save_steps: Most steps between two saved states.
        save_seconds: Most seconds between two saved states.
    """

    log_steps: int = 10
    save_steps: int = 1000
    save_seconds: float = 300.0


class StepKeeper(Callback):
    """Logs, validates, keeps the best weights and saves the state, after optimiser steps.

    A state is saved after every validation too, so that it always names the weights that are
    kept; they lie in two files in turn, and the file that a state names is never overwritten
    before another state is saved.
    """

    def __init__(
        self,
        folder: TrainingFolder,
        data: TrainingData,
        pace: Pace,
        report: Report,
    ) -> None:
        self._folder = folder
        self._data = data
        self._settings = data.settings
        self._pace = pace
        self._report = report
        self._seen = -1
        self._saved = (0, time.monotonic())
        self._began = time.monotonic()
        self._waited_before = 0.0
        self._loss = float("nan")
        self.history = History()

    @property
    def _every(self) -> int:
        per_epoch, _ = self._settings.steps_of(self._data.count)
        return self._settings.validate_every or max(1, per_epoch // self._settings.accumulate)

    def state_dict(self) -> dict[str, Any]:
        """The history, which belongs to the state of the run."""
        return asdict(self.history)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the history of a saved state."""
        self.history = History(**state_dict)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Count from the step that the run begins with."""
        self._seen = trainer.global_step
        self._saved = (trainer.global_step, time.monotonic())
        self._began = time.monotonic() - self.history.seconds
        self._waited_before = self.history.waited

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Do what is due after an optimiser step; nothing after a batch that only adds up."""
        step = trainer.global_step
        if step == self._seen:
            return
        self._seen = step
        last = self.history.done = step == pl_module.total_steps
        if step % self._pace.log_steps == 0 or step == 1 or last:
            self._log(trainer, pl_module)
        if trainer.is_global_zero:
            self._report(step, pl_module.total_steps, self._loss)
        held_out = bool(self._data.held_out)
        judged = last or (held_out and step % self._every == 0)
        if judged or self._is_due(trainer, step):
            checked_loss(trainer, pl_module.step_loss)
            check_weights(trainer)
            if judged:
                self._judge(trainer, pl_module, last)
            self._save(trainer)

    def _log(self, trainer: Trainer, module: TrainedModule) -> None:
        point = self._place(trainer) | module.step_row(trainer)
        self._loss = point["loss"]
        self.history.points.append(point)
        _send(trainer.loggers, "train", point)

    def _place(self, trainer: Trainer) -> dict[str, float]:
        per_epoch, _ = self._settings.steps_of(self._data.count)
        step = trainer.global_step
        return {"step": step, "epoch": round(step * self._settings.accumulate / per_epoch, 4)}

    def _judge(self, trainer: Trainer, module: TrainedModule, last: bool) -> None:
        """Validate, and keep the weights if they are the best so far (or the last)."""
        best = False
        if self._data.held_out:
            row = self._place(trainer) | module.validated(trainer, self._data)
            best = all(row["score"] >= old["score"] for old in self.history.validations)
            self.history.validations.append(row)
            _send(trainer.loggers, "validation", row)
        keeps_best = self._settings.keep == "best" and self._data.held_out
        if best if keeps_best else last:
            self._keep(trainer)

    def _keep(self, trainer: Trainer) -> None:
        slot = SLOTS[1] if self.history.kept.get("file") == SLOTS[0] else SLOTS[0]
        state = trainer.strategy.lightning_module_state_dict()  # all processes: it may be sharded
        if trainer.is_global_zero:
            staged = self._folder.staged(slot)
            save_weights(state, staged)
            self._folder.commit(staged, slot)
        self.history.kept = {"step": trainer.global_step, "file": slot}

    def _is_due(self, trainer: Trainer, step: int) -> bool:
        steps, at = self._saved
        if step - steps >= self._pace.save_steps:
            return True
        late = time.monotonic() - at >= self._pace.save_seconds
        if trainer.world_size == 1:
            return late
        # Saving is done together, so the clock of the first process decides, now and then.
        return step % self._pace.log_steps == 0 and bool(trainer.strategy.broadcast(late))

    def _save(self, trainer: Trainer) -> None:
        self.history.seconds = round(time.monotonic() - self._began, 3)
        waited = self._data.loader.waited if self._data.loader else 0.0
        self.history.waited = round(self._waited_before + waited, 3)
        staged = self._folder.staged(CHECKPOINT)
        trainer.save_checkpoint(staged)
        if trainer.is_global_zero:
            self._folder.commit(staged, CHECKPOINT)
            for logger in trainer.loggers:
                logger.save()
        self._saved = (trainer.global_step, time.monotonic())


def _send(loggers: list[Logger], prefix: str, row: Mapping[str, float]) -> None:
    values = {f"{prefix}/{name}": value for name, value in row.items() if name != "step"}
    for logger in loggers:
        logger.log_metrics(values, step=int(row["step"]))
