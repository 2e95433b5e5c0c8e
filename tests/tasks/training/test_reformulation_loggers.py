"""Loggers that a training can write to: what Lightning's classes accept, without their packages."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import get_args

import pytest

LOGGERS = ("comet", "csv", "mlflow", "tensorboard", "wandb")


@pytest.mark.parametrize("name", LOGGERS)
def test_every_logger_takes_what_it_is_given(name: str, tmp_path: Path) -> None:
    """By the real signatures: an unknown name would only show where the package is installed."""
    from lightning.pytorch import loggers

    from tasks.training.trainer import _LOGGERS, _logger_arguments

    given = _logger_arguments(name, tmp_path / "key" / "logs", "start-1", "reformulation")
    signature = inspect.signature(getattr(loggers, _LOGGERS[name]).__init__)
    bound = signature.bind(None, **given)
    places = [value for value in given.values() if value.startswith(str(tmp_path / "key" / "logs"))]
    assert len(places) == 1
    assert "key" in given.values() or name in ("csv", "tensorboard")
    # What is passed on unseen must be among the names that the service itself documents.
    assert set(bound.arguments.get("kwargs", {})) <= {"name", "offline_directory"}


def test_the_settings_offer_exactly_these() -> None:
    from tasks.training.run_settings import RunSettings
    from tasks.training.trainer import _LOGGERS

    (offered, _) = get_args(RunSettings.model_fields["loggers"].annotation)
    assert set(get_args(offered)) == set(_LOGGERS) == set(LOGGERS)


def test_a_second_start_writes_beside_the_first(tmp_path: Path) -> None:
    from tasks.training.run_settings import RunSettings
    from tasks.training.trainer import _loggers

    run = RunSettings(loggers=("csv",))
    folder = tmp_path / "key" / "logs"
    for start in ("start-1", "start-2"):
        (logger,) = _loggers(run, folder, "reformulation")
        assert Path(str(logger.log_dir)) == folder / "csv" / start
        Path(str(logger.log_dir)).mkdir(parents=True, exist_ok=True)
