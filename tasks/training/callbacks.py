"""What happens between two steps of the training: logs, validation, the best weights, the state."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from torch.distributed.tensor import DTensor

from models.instructcir.ema import momentum
from models.instructcir.lightning_module import ReformulationModule
from models.instructcir.loss import gather
from models.instructcir.recall import Recall, recall
from models.instructcir.schedules import rate_factor
from models.instructcir.training_settings import TrainingSettings
from tasks.training.data import ReformulationData
from tasks.training.folder import CHECKPOINT, SLOTS, History, TrainingFolder

_STARTS_ANEW: Final = (
    "A changed setting is another training, which starts at its first step; the state saved "
    "before serves only the settings as they are"
)

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
        data: ReformulationData,
        settings: TrainingSettings,
        pace: Pace,
        report: Report,
    ) -> None:
        self._folder = folder
        self._data = data
        self._settings = settings
        self._pace = pace
        self._report = report
        self._seen = -1
        self._saved = (0, time.monotonic())
        self._loss = float("nan")
        self.history = History()

    @property
    def _every(self) -> int:
        per_epoch, _ = self._settings.steps_of(len(self._data.training.triplets))
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
        held_out = bool(self._data.validation.triplets)
        judged = last or (held_out and step % self._every == 0)
        if judged or self._is_due(trainer, step):
            _finite(float(trainer.strategy.reduce(pl_module.step_loss)), step)
            _check_weights(trainer)
            if judged:
                self._judge(trainer, pl_module, last)
            self._save(trainer)

    def _log(self, trainer: Trainer, module: ReformulationModule) -> None:
        self._loss = _finite(float(trainer.strategy.reduce(module.step_loss)), trainer.global_step)
        # The schedule has moved on already: these are the rates that the step was taken with.
        factor = rate_factor(trainer.global_step - 1, module.total_steps, self._settings.warmup)
        rates = {
            f"lr_{group['name'].split('_')[0]}": group["initial_lr"] * factor
            for group in trainer.optimizers[0].param_groups
        }
        point: dict[str, float] = {
            "step": trainer.global_step,
            "epoch": self._epoch(trainer),
            "loss": self._loss,
            **rates,
            "gradient_norm": float(module.step_norm),
            "temperature": 1.0 / float(module.temperature().detach()),
        }
        if module.ema is not None:
            point["momentum"] = momentum(
                module.ema.settings, trainer.global_step - 1, module.total_steps
            )
        self.history.points.append(point)
        _send(trainer.loggers, "train", point)

    def _epoch(self, trainer: Trainer) -> float:
        per_epoch, _ = self._settings.steps_of(len(self._data.training.triplets))
        return round(trainer.global_step * self._settings.accumulate / per_epoch, 4)

    def _judge(self, trainer: Trainer, module: ReformulationModule, last: bool) -> None:
        """Validate, and keep the weights if they are the best so far (or the last)."""
        step = trainer.global_step
        best = False
        if self._data.validation.triplets:
            row: dict[str, float] = {"step": step, "epoch": self._epoch(trainer)}
            found = validate(trainer, module, self._data)
            for branch, values in found.items():
                row |= {f"{branch}_{name}": value for name, value in asdict(values).items()}
            chosen = found.get(self._settings.branch) or found["online"]
            row["score"] = chosen.score
            best = all(chosen.score >= old["score"] for old in self.history.validations)
            self.history.validations.append(row)
            _send(trainer.loggers, "validation", row)
        keeps_best = self._settings.keep == "best" and self._data.validation.triplets
        if best if keeps_best else last:
            self._keep(trainer, step)

    def _keep(self, trainer: Trainer, step: int) -> None:
        slot = SLOTS[1] if self.history.kept.get("file") == SLOTS[0] else SLOTS[0]
        state = trainer.strategy.lightning_module_state_dict()  # all processes: it may be sharded
        if trainer.is_global_zero:
            self._folder.write_weights(slot, state)
        self.history.kept = {"step": step, "file": slot}

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
        staged = self._folder.staged(CHECKPOINT)
        trainer.save_checkpoint(staged)
        if trainer.is_global_zero:
            self._folder.commit(staged, CHECKPOINT)
            for logger in trainer.loggers:
                logger.save()
        self._saved = (trainer.global_step, time.monotonic())


def validate(
    trainer: Trainer, module: ReformulationModule, data: ReformulationData
) -> dict[str, Recall]:
    """Recall of held-out triplets among all held-out targets, by branch of the query.

    The triplets are shared out over the processes, each of which encodes equally many.
    """
    rows = data.validation
    count, world = len(rows.triplets), trainer.world_size
    each = -(-count // world)
    mine = [(trainer.global_rank * each + i) % count for i in range(each)]
    size = max(1, data.settings.batch_size // world)
    module.eval()
    parts: dict[str, list[torch.Tensor]] = {}
    with torch.no_grad():
        for number, batch in enumerate(data.still_batches(rows, mine, size)):
            moved = trainer.strategy.batch_to_device(batch)
            encoded = trainer.strategy.validation_step(moved, number)
            for name, values in encoded.items():
                parts.setdefault(name, []).append(values)
        whole = {name: torch.cat(values) for name, values in parts.items()}
        if world > 1:
            whole = {name: gather(values) for name, values in whole.items()}
    module.train()
    ids = torch.tensor([rows.numbers[t.target] for t in rows.triplets])
    found = {name: values[:count].float().cpu() for name, values in whole.items()}
    targets = found.pop("target")
    return {name: recall(queries, targets, ids) for name, queries in found.items()}


def _finite(loss: float, step: int) -> float:
    if loss != loss or loss in (float("inf"), float("-inf")):
        raise FloatingPointError(
            f"the loss is {loss} at step {step}. Lower training.new_learning_rate or "
            "training.learning_rate, lengthen training.warmup, keep training.clip at 1, or raise "
            f"loss.temperature. {_STARTS_ANEW}"
        )
    return loss


def _check_weights(trainer: Trainer) -> None:
    """Raise where a weight is no number, on whichever device: such a state leads nowhere."""
    trained = [p for group in trainer.optimizers[0].param_groups for p in group["params"]]
    parts = [p.to_local() if isinstance(p, DTensor) else p for p in trained]
    # The largest of each, since sums of squares would overflow; a part may be empty.
    largest = torch._foreach_norm([part.detach() for part in parts if part.numel()], torch.inf)
    broken = ~torch.isfinite(torch.stack(largest)).all()
    if float(trainer.strategy.reduce(broken.float())) > 0:
        raise FloatingPointError(
            f"weights are no numbers any more after step {trainer.global_step}, though the loss "
            "still was one. Lower training.new_learning_rate or training.learning_rate, or keep "
            f"training.clip at 1. {_STARTS_ANEW}"
        )


def _send(loggers: list[Logger], prefix: str, row: Mapping[str, float]) -> None:
    values = {f"{prefix}/{name}": value for name, value in row.items() if name != "step"}
    for logger in loggers:
        logger.log_metrics(values, step=int(row["step"]))
