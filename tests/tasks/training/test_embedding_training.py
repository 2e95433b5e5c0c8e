"""The training of an embedding model: stopped, killed and resumed, it ends with equal weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.killed_trainings import assert_kills_change_nothing
from tests.fakes.small_trainings import published_folder

if TYPE_CHECKING:
    from models.encoders.spec import EncoderSpec
    from tasks.training.composed import ComposedJob
    from tasks.training.triplet_sets import TripletSet

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen3-VL as a network's folder."""
    from models.composed.published import bring_in
    from models.composed.tuned_embedding import TunedEmbeddingSettings
    from tests.fakes.embedders import save_qwen3_vl

    place = tmp_path_factory.mktemp("embedding")
    own = TunedEmbeddingSettings(side=64, instruction="add it")
    bring_in("tuned-embedding", save_qwen3_vl(place / "qwen"), place / "network", own, "")
    return place / "network"


def job_of(root: Path, triplets: TripletSet, clip: EncoderSpec, start: Path) -> ComposedJob:
    from models.composed.registry import system
    from tasks.training.composed import ComposedJob

    record = system("tuned-embedding")
    training = record.training.changed(
        batch_size=4, max_steps=6, validation=5, validate_every=3, learning_rate=1e-3
    )
    own = record.settings.given({"scale": 10.0, "instruction": "add it"}, "network")
    return ComposedJob.of(str(root), record.name, triplets, clip, own, training, "", str(start))


def finished(job: ComposedJob) -> Path:
    return published_folder(job, save_steps=2, log_steps=1)


def test_all_but_the_unused_head_learns(
    tmp_path: Path, triplets: TripletSet, clip: EncoderSpec, start: Path
) -> None:
    import safetensors.torch
    import torch

    from models.composed.checkpoint import load_composed

    trained = finished(job_of(tmp_path, triplets, clip, start))
    before, after = (
        safetensors.torch.load_file(folder / "model.safetensors") for folder in (start, trained)
    )
    assert before.keys() == after.keys()
    still = [name for name in before if torch.equal(before[name], after[name])]
    assert len(still) < 0.1 * len(before), still
    loaded = load_composed(trained)
    assert loaded.system == "tuned-embedding"
    assert load_composed(start).network.architecture() == loaded.network.architecture()


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(
    tmp_path: Path, triplets: TripletSet, clip: EncoderSpec, start: Path
) -> None:
    job = job_of(tmp_path, triplets, clip, start)
    assert_kills_change_nothing(job, tmp_path, steps=6, kills=3, longest=4)
