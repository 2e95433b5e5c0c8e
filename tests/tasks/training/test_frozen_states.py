"""What frozen towers make of images and texts is computed once, and changes no training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.captured_graphs import capture_graphs
from tests.fakes.small_trainings import NOISE, composed_job, published_folder

if TYPE_CHECKING:
    import torch

    from models.encoders.spec import EncoderSpec
    from tasks.training.composed import ComposedJob
    from tasks.training.triplet_sets import TripletSet

pytestmark = pytest.mark.usefixtures("one_thread")

TRAINING: dict[str, Any] = {
    "batch_size": 8,
    "max_steps": 4,
    "validation": 5,
    "validate_every": 2,
    "learning_rate": 1e-3,
    "new_learning_rate": 3e-3,
    "keep": "last",
}
OWN: dict[str, dict[str, Any]] = {
    "covr": {"text_layers": 1},
    "case": {"text_layers": 1},
    "candidate-filter": {"text_layers": 1},
    "candidate-rerank": {},
    "transagg": {"feedforward": 16, "scale": 10},
    "magiclens": {
        **{"trained": "neither", "layers": 1, "heads": 2, "feedforward": 16},
        "scale": 10,
    },
    "clip4cir-sum": {"scale": 10},
    "clip4cir": {"projection": 6, "hidden": 10, "scale": 10},
    "blip4cir-bi-sum": {"scale": 10},
    "blip4cir-bi": {"projection": 6, "hidden": 10, "scale": 10},
}
START = {
    "candidate-rerank": "candidate-filter",
    "clip4cir": "clip4cir-sum",
    "blip4cir-bi": "blip4cir-bi-sum",
}
IMAGES, TEXTS = {"references", "targets"}, {"texts", "reversed_texts"}
"""Parts of a batch that pictures, and token ids, stand in."""
STATES: dict[str, tuple[int, set[str]]] = {
    "covr": (3, IMAGES),
    "case": (3, IMAGES),
    "candidate-filter": (3, IMAGES),
    "candidate-rerank": (3, IMAGES),
    "transagg": (3, IMAGES),
    "magiclens": (2, IMAGES | {"texts"}),
    "blip4cir-bi-sum": (2, IMAGES),
    "clip4cir": (2, IMAGES | {"texts"}),
    "blip4cir-bi": (2, IMAGES | TEXTS),
}
"""System -> axes of an image's states in a batch, and the parts that are states."""


@pytest.fixture(scope="module")
def starts(
    tmp_path_factory: pytest.TempPathFactory, triplets: TripletSet, clip: EncoderSpec
) -> dict[str, str]:
    """Systems that start from a trained network -> the folder of one."""
    root = tmp_path_factory.mktemp("starts")
    return {
        name: str(published_folder(job_of(start, root, triplets, clip, max_steps=2)))
        for name, start in START.items()
    }


def job_of(
    name: str, root: Path, triplets: TripletSet, clip: EncoderSpec, start: str = "", **training: Any
) -> ComposedJob:
    return composed_job(name, root, triplets, clip, OWN[name], TRAINING | training, start)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    import safetensors.torch

    return safetensors.torch.load_file(folder / "model.safetensors")


@pytest.mark.parametrize("name", STATES)
def test_states_that_are_made_once_train_as_pictures_do(
    name: str, tmp_path: Path, triplets: TripletSet, clip: EncoderSpec, starts: dict[str, str]
) -> None:
    """Equal weights after four steps, and an image tower that reads each image once."""
    import torch

    from models.composed.network import Frozen
    from models.training.lightning_module import SystemModule

    kinds: list[dict[str, tuple[int, bool]]] = []
    read = SystemModule._read

    def watched(self: SystemModule, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        kinds.append({k: (v.ndim, v.is_floating_point()) for k, v in batch.items()})
        return read(self, batch)

    def job(place: str) -> ComposedJob:
        return job_of(name, tmp_path / place, triplets, clip, starts.get(name, ""))

    axes, parts = STATES[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SystemModule, "_read", watched)
        once = weights_of(published_folder(job("once")))
    assert kinds
    for kind in kinds:
        assert {part for part, (_, floats) in kind.items() if floats} == parts
        assert {kind[part][0] for part in IMAGES} == {axes}
    network = job("once").new_network()
    start = network.state_dict()
    assert any(not torch.equal(once[weight], start[weight]) for weight in once)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(network), "frozen", lambda self: Frozen())
        pictures = weights_of(published_folder(job("pictures")))
    for weight, tensor in pictures.items():
        if not weight.endswith(NOISE):
            torch.testing.assert_close(once[weight], tensor, rtol=1e-4, atol=1e-5, msg=weight)


def test_states_that_need_too_much_memory_are_not_kept(
    tmp_path: Path, triplets: TripletSet, clip: EncoderSpec, caplog: pytest.LogCaptureFixture
) -> None:
    """27 images of 5 tokens, 16 wide: below a MiB, and above none."""
    job = job_of("covr", tmp_path, triplets, clip)
    from tasks.training.run_settings import RunSettings

    network = job.new_network()
    with caplog.at_level(logging.INFO, "models.composed.frozen_states"):
        for room, axes in ((0, 4), (1, 3)):
            run = RunSettings(accelerator="cpu", cache_mb=room)
            data = job.made_ready(job.load_data(run, network), run, network)
            assert data.batches(0, 1)[0]["references"].ndim == axes
    (line,) = caplog.messages
    assert "run.cache_mb allows 0" in line


def test_random_crops_are_read_again(
    tmp_path: Path, triplets: TripletSet, clip: EncoderSpec
) -> None:
    from tasks.training.run_settings import RunSettings

    job = job_of("covr", tmp_path, triplets, clip, augmentation="random_resized_crop")
    run, network = RunSettings(accelerator="cpu"), job.new_network()
    data = job.load_data(run, network)
    assert job.made_ready(data, run, network) is data


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN)
def test_compiled_training_is_the_same(
    name: str,
    tmp_path: Path,
    triplets: TripletSet,
    clip: EncoderSpec,
    starts: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    start = starts.get(name, "")
    plain = weights_of(published_folder(job_of(name, tmp_path, triplets, clip, start)))
    captured = capture_graphs(monkeypatch)
    compiled = weights_of(
        published_folder(job_of(name, tmp_path, triplets, clip, start, compile=True))
    )
    assert captured
    for weight, tensor in plain.items():
        if not weight.endswith(NOISE):
            torch.testing.assert_close(compiled[weight], tensor, rtol=1e-4, atol=1e-5, msg=weight)
