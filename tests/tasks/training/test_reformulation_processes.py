"""Training in two processes, and processes that are killed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from models.instructcir.settings import LossSettings
from tasks.training.triplet_sets import TripletSet
from tests.fakes.killed_trainings import assert_kills_change_nothing

if TYPE_CHECKING:
    pass
from tests.fakes.small_trainings import NOISE, Interrupted, Train, job_at, run_settings, stop_after

pytestmark = pytest.mark.usefixtures("one_thread")


def test_two_processes_train_like_one(tmp_path: Path, triplets: TripletSet, train: Train) -> None:
    """Gathered negatives, averaged gradients, shared validation; begun by one, ended by two."""
    import safetensors.torch
    import torch

    from tasks.training.launcher import train_in_processes

    changes: dict[str, Any] = {"training": {"max_steps": 6, "validate_every": 3}}
    wanted, weights = train(job_at(tmp_path / "one", triplets, **changes))
    job = job_at(tmp_path / "two", triplets, **changes)
    two = run_settings(devices=2)
    with pytest.raises(Interrupted):
        train(job, report=stop_after(4))
    steps: list[int] = []
    train_in_processes(job, two, lambda step, total, loss: steps.append(step))
    assert steps == [4, 5, 6]  # it went on from the state of step 3
    folder = job.training_folder
    assert len(list(folder.path.glob("pictures-*"))) == 1  # for both
    history = folder.finished()
    assert history is not None
    again = safetensors.torch.load_file(folder.path / history.kept["file"])
    for name, tensor in weights.items():
        torch.testing.assert_close(again[name], tensor, rtol=1e-2, atol=2e-4)
    for mine, theirs in zip(history.points, wanted.points, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
    assert history.validations == wanted.validations


@pytest.mark.slow
@pytest.mark.parametrize("averages", [True, False])
def test_sharded_weights_train_like_whole_ones(
    tmp_path: Path, triplets: TripletSet, train: Train, averages: bool
) -> None:
    """Two processes that share the weights resume from a state of one, or from their own."""
    import torch

    from tasks.training.launcher import train_in_processes

    training = {"max_steps": 9, "validate_every": 3, "keep": "last"}
    ema = {"enabled": averages, "start": 0.5}
    learned = LossSettings(temperature=0.1, learnable_temperature=averages)
    one, job = (
        replace(job_at(tmp_path / name, triplets, training=training, ema=ema), loss=learned)
        for name in ("one", "two")
    )
    wanted, weights = train(one)
    two = run_settings(devices=2, strategy="fsdp")
    steps: list[int] = []

    def until_eight(step: int, total: int, loss: float) -> None:
        steps.append(step)
        if step == 8:
            raise Interrupted

    if averages:
        with pytest.raises(Interrupted):
            train(job, report=stop_after(4))
    with pytest.raises(Interrupted):  # the processes end with who asked for them
        train_in_processes(job, two, until_eight)
    if averages:
        history, again = train(job)
        assert steps == [4, 5, 6, 7, 8]
    else:
        train_in_processes(job, two, lambda step, total, loss: steps.append(step))
        history, again = train(job)
        assert steps == [1, 2, 3, 4, 5, 6, 7, 8, 7, 8, 9]
    for name, tensor in weights.items():
        if not name.endswith(NOISE):
            torch.testing.assert_close(again[name], tensor, rtol=1e-2, atol=2e-4)
    for mine, theirs in zip(history.points, wanted.points, strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=1e-3)
        assert mine["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-2)
    assert history.validations == wanted.validations


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(tmp_path: Path, triplets: TripletSet) -> None:
    """SIGKILL while steps, validations, saves and publishing run; the end is always the same."""
    job = job_at(tmp_path, triplets, training={"max_steps": 24})
    assert_kills_change_nothing(job, tmp_path, steps=24, kills=6, longest=4)
