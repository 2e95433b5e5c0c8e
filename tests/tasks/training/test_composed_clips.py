"""Trainings of TransAgg and CLIP4CIR: resumed, in two stages, and on vectors made once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.killed_trainings import assert_kills_change_nothing
from tests.fakes.small_trainings import Interrupted, composed_job, published_folder

if TYPE_CHECKING:
    from models.encoders.spec import EncoderSpec
    from tasks.training.composed import ComposedJob
    from tasks.training.triplet_sets import TripletSet

pytestmark = pytest.mark.usefixtures("one_thread")

TRAINING: dict[str, Any] = {
    "batch_size": 8,
    "max_steps": 6,
    "validation": 5,
    "validate_every": 3,
    "learning_rate": 1e-3,
    "new_learning_rate": 3e-3,
}
OWN: dict[str, dict[str, Any]] = {
    "transagg": {"feedforward": 16, "scale": 10},
    "clip4cir-sum": {"scale": 10},
    "clip4cir": {"projection": 6, "hidden": 10, "scale": 10},
}


def job_of(
    name: str,
    root: Path,
    triplets: TripletSet,
    clip: EncoderSpec,
    *,
    start: str = "",
    label: str = "",
    **training: Any,
) -> ComposedJob:
    return composed_job(
        name, root, triplets, clip, OWN[name], TRAINING | training, start=start, label=label
    )


def finished(job: ComposedJob, stop: int = 0) -> Path:
    """The published folder; `stop`: the training is interrupted after so many steps."""
    return published_folder(job, stop, save_steps=2, log_steps=1)


@pytest.mark.parametrize("name", ["transagg", "clip4cir-sum"])
def test_an_interrupted_training_ends_with_the_same_bytes(
    name: str, tmp_path: Path, triplets: TripletSet, clip: EncoderSpec
) -> None:
    undisturbed = finished(job_of(name, tmp_path / "a", triplets, clip))
    job = job_of(name, tmp_path / "b", triplets, clip)
    for stop in (1, 5):
        with pytest.raises(Interrupted):
            finished(job, stop)
    again = finished(job)
    for file in ("model.safetensors", "curves.csv"):
        assert (again / file).read_bytes() == (undisturbed / file).read_bytes()
    steps = (again / "curves.csv").read_text().splitlines()
    assert len(steps) == TRAINING["max_steps"] + 1


def test_stage_two_trains_the_combiner_on_the_towers_of_stage_one(
    tmp_path: Path, triplets: TripletSet, clip: EncoderSpec
) -> None:
    """The towers stay as stage one left them, its label is handed on, a stop changes nothing."""
    import safetensors.torch
    import torch

    from models.composed.checkpoint import load_composed
    from tests.fakes.small_networks import pixels

    first = finished(job_of("clip4cir-sum", tmp_path, triplets, clip, label="CIRR's own texts"))
    second_job = job_of("clip4cir", tmp_path, triplets, clip, start=str(first), batch_size=16)
    with pytest.raises(Interrupted):
        finished(second_job, stop=3)
    second = finished(second_job)
    other_job = job_of("clip4cir", tmp_path / "b", triplets, clip, start=str(first), batch_size=16)
    undisturbed = finished(other_job)
    assert (second / "model.safetensors").read_bytes() == (
        undisturbed / "model.safetensors"
    ).read_bytes()

    towers, whole = (
        safetensors.torch.load_file(folder / "model.safetensors") for folder in (first, second)
    )
    assert all(torch.equal(whole[name], tensor) for name, tensor in towers.items())
    assert {name.split(".")[0] for name in whole.keys() - towers.keys()} == {"combiner"}
    config = json.loads((second / "config.json").read_text())
    assert config["provenance"]["zero_shot"] is False
    assert config["provenance"]["zero_shot_reason"] == "CIRR's own texts"
    assert config["base"] == json.loads((first / "config.json").read_text())["base"]

    network, before = load_composed(second).network, load_composed(first).network
    read = network.tokenised(["red", "bl"])
    with torch.no_grad():
        torch.testing.assert_close(network.target(pixels(2)), before.target(pixels(2)))
        assert network.query(pixels(2), read).norm(dim=1).tolist() == pytest.approx([1, 1])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transagg", "clip4cir-sum", "clip4cir"])
def test_killed_at_random_moments_and_resumed(
    name: str, tmp_path: Path, triplets: TripletSet, clip: EncoderSpec
) -> None:
    """SIGKILL while steps, validations, saves and publishing run; the end is always the same."""
    start = ""
    if name == "clip4cir":
        start = str(finished(job_of("clip4cir-sum", tmp_path / "start", triplets, clip)))
    job = job_of(name, tmp_path, triplets, clip, start=start, max_steps=16)
    assert_kills_change_nothing(job, tmp_path, steps=16, kills=5, longest=4)


def test_a_start_that_does_not_fit_is_refused(
    tmp_path: Path, triplets: TripletSet, clip: EncoderSpec
) -> None:
    from flows.requests.train_composed import train_composed

    given: Any = triplets.model_dump(mode="json")
    with pytest.raises(ValueError, match="train clip4cir-sum first"):
        train_composed("clip4cir", given, settings={"root": str(tmp_path)})
    with pytest.raises(ValueError, match="CLIP4CIR stage one starts from the backbone"):
        train_composed("clip4cir-sum", given, settings={"root": str(tmp_path)}, start=str(tmp_path))
    folder = finished(job_of("transagg", tmp_path, triplets, clip))
    with pytest.raises(ValueError, match="is a network of transagg; CLIP4CIR starts from"):
        train_composed("clip4cir", given, settings={"root": str(tmp_path)}, start=str(folder))
    with pytest.raises(ValueError, match="TransAgg starts from covr"):
        train_composed("transagg", given, settings={"root": str(tmp_path)}, start=str(folder))


def test_recomputed_activations_give_the_same_gradients(clip: EncoderSpec) -> None:
    import torch

    from models.composed.registry import system
    from models.training.lightning_module import SystemModule
    from tests.fakes.small_networks import pixels

    record = system("clip4cir-sum")
    found = []
    for checkpointing in (False, True):
        network = record.build(clip, record.settings(), 0)  # type: ignore[misc]
        training = record.training.changed(gradient_checkpointing=checkpointing)
        SystemModule(network, training, 1)
        batch = {"references": pixels(2), "targets": pixels(2, 1), "target_ids": torch.arange(2)}
        network.loss(batch | network.tokenised(["red", "a bl"])).backward()
        found.append([p.grad for p in network.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
