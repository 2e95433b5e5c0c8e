"""A training, run by Lightning from its last saved state."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy

from models.devices import tf32_products
from models.training.batches import TrainingData
from tasks.training.callbacks import Pace, Report, StepKeeper
from tasks.training.folder import CHECKPOINT
from tasks.training.lightning_job import LightningJob
from tasks.training.run_settings import RunSettings

_PRECISIONS: Final = {"fp32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed"}
_LOGGERS: Final = {
    "csv": "CSVLogger",
    "tensorboard": "TensorBoardLogger",
    "wandb": "WandbLogger",
    "mlflow": "MLFlowLogger",
    "comet": "CometLogger",
}
_MEANT_SO: Final = (
    "You defined a `validation_step` but have no `val_dataloader`",  # see `StepKeeper`
    ".*is smaller than the logging interval",  # likewise
    "Found .* module.s. in eval mode",  # the moving average
    ".*isinstance.treespec, LeafSpec.",  # Lightning's own, of torch
    "FSDP2-wrapped module .* returned a view tensor",  # nobody writes into it
)


def fit(
    job: LightningJob, run: RunSettings, data: TrainingData, network: Any, report: Report
) -> None:
    """Train from the last saved state to the end; kept weights and history lie in the folder.

    Args:
        job: The training.
        run: Where.
        data: From `job.load_data`.
        network: From `job.new_network`; it is trained in place.
        report: Told of every step.
    """
    # Lightning casts to bf16 by itself.
    with tf32_products(run.device(), job.settings.precision):
        _fit(job, run, data, network, report)


def _fit(
    job: LightningJob, run: RunSettings, data: TrainingData, network: Any, report: Report
) -> None:
    data = job.made_ready(data, run, network)
    _, steps = job.settings.steps_of(data.count)
    module = job.module(network, steps)
    folder = job.training_folder
    folder.make()
    pace = Pace(run.log_steps, run.save_steps, run.save_seconds)
    keeper = StepKeeper(folder, data, pace, report)
    with _quiet():
        trainer = Trainer(
            accelerator=run.accelerator,
            devices=run.devices,
            strategy=_strategy(run),
            precision=_PRECISIONS[job.settings.precision],
            max_steps=steps,
            accumulate_grad_batches=job.settings.accumulate,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            logger=_loggers(run, folder.path / "logs", job.KIND),
            callbacks=[keeper],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder.path,
        )
        with _interruptible():
            trainer.fit(
                module, datamodule=data, ckpt_path=folder.file(CHECKPOINT), weights_only=True
            )
    data.trainer = None  # or all that was trained would live as long as the data
    # The history comes with the state, also where its last step had been taken and nothing but
    # this line was left to do.
    if trainer.is_global_zero:
        folder.write_history(keeper.history)


def train_here(job: LightningJob, run: RunSettings, report: Report) -> None:
    """Train in this process (and in the ones that Lightning starts)."""
    network = job.new_network()
    fit(job, run, job.load_data(run, network), network, report)


def _strategy(run: RunSettings) -> str | Strategy:
    if run.devices == 1:
        return "auto"
    if run.strategy == "ddp":
        return "ddp"
    # Sharded by the module's `configure_model`, saved as one file as by any other strategy.
    return ModelParallelStrategy(run.devices, 1, save_distributed_checkpoint=False)


def _loggers(run: RunSettings, folder: Path, experiment: str) -> list[Logger]:
    """Loggers by name. Every start writes next to the earlier ones, never over them."""
    start = 1
    while any((folder / name / f"start-{start}").exists() for name in run.loggers):
        start += 1
    made: list[Logger] = []
    kinds = importlib.import_module("lightning.pytorch.loggers")
    for name in run.loggers:
        kind = getattr(kinds, _LOGGERS[name])
        made.append(kind(**_logger_arguments(name, folder, f"start-{start}", experiment)))
    return made


def _logger_arguments(name: str, folder: Path, start: str, experiment: str) -> dict[str, str]:
    """Arguments of a logger; the run is called by the job's key, and stays in the folder."""
    key, place = folder.parent.name, str(folder)
    by_name = {
        "wandb": {"name": key, "save_dir": place},
        "mlflow": {
            "experiment_name": experiment,
            "run_name": key,
            "save_dir": str(folder / name),
        },
        "comet": {"name": key, "offline_directory": place},
    }
    return by_name.get(name) or {"save_dir": place, "name": name, "version": start}


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C stays what it is: Lightning makes an exit with status 1 of it."""
    try:
        yield
    except SystemExit as ended:
        if isinstance(ended.__context__, KeyboardInterrupt):
            raise ended.__context__ from None
        raise


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's tips and its warnings of intended choices."""
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in _MEANT_SO:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
