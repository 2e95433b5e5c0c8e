"""Trainings of CoVR and of the CASE-style system on a small CLIP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.killed_trainings import assert_kills_change_nothing
from tests.fakes.small_trainings import composed_job, published_folder

if TYPE_CHECKING:
    from models.encoders.spec import EncoderSpec
    from tasks.training.composed import ComposedJob
    from tasks.training.triplet_sets import TripletSet

pytestmark = pytest.mark.usefixtures("one_thread")

TRAINING: dict[str, Any] = {
    "batch_size": 8,
    "validation": 5,
    "validate_every": 4,
    "new_learning_rate": 3e-3,
    "seed": 3,
}


def job_of(
    name: str, root: Path, triplets: TripletSet, clip: EncoderSpec, steps: int, start: str = ""
) -> Any:
    training = {**TRAINING, "max_steps": steps}
    return composed_job(name, root, triplets, clip, {"text_layers": 1}, training, start)


def trained(job: ComposedJob) -> Path:
    return published_folder(job, save_steps=5, log_steps=1)


def test_training_changes_the_text_side_alone(
    tmp_path: Path, triplets: TripletSet, clip: EncoderSpec
) -> None:
    """The published folder: CLIP's image side to the bit, new words, a moved temperature."""
    import polars as pl
    import torch

    from models.composed.checkpoint import load_composed
    from models.encoders.loading import load_encoder

    folder = trained(job_of("case", tmp_path, triplets, clip, 4))
    found = load_composed(folder)
    own = load_encoder(clip.changed(preprocess="clip")).model
    start = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(found.network.target(start), own.encode_image(start), atol=1e-5)
    words = found.network.state_dict()["towers.text_encoder.embeddings.word_embeddings.weight"]
    assert not torch.equal(words[: len(own.token_embedding.weight)], own.token_embedding.weight)
    curve = pl.read_csv(folder / "curves.csv")
    assert curve["loss"].is_finite().all()
    assert curve["temperature"].n_unique() > 1
    assert found.provenance["zero_shot"] is True


def test_published_towers_are_trained_further(
    tmp_path: Path, triplets: TripletSet, clip: EncoderSpec
) -> None:
    """From BLIP's own towers, at the rate of old layers; the vocabulary goes with them."""
    import safetensors.torch
    import torch

    from models.composed.checkpoint import load_composed
    from models.composed.covr import CovrSettings
    from models.composed.published import bring_in
    from tests.fakes.blip_files import covr_file

    start = tmp_path / "start"
    bring_in("covr", covr_file(tmp_path), start, CovrSettings(), "trained on CIRR")
    job = job_of("case", tmp_path, triplets, clip, 3, str(start))
    assert {group.name for group in job.new_network().parameter_groups()} == {
        "pretrained_decay",
        "pretrained_no_decay",
    }
    folder = trained(job)
    before, after = (
        safetensors.torch.load_file(each / "model.safetensors") for each in (start, folder)
    )
    assert after.keys() - before.keys() == {"log_scale"}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert not {name for name in changed if "vision" in name}
    assert (folder / "vocab.txt").read_bytes() == (start / "vocab.txt").read_bytes()
    config = load_composed(folder).network.preprocess.config
    assert (config.resize_mode, config.size) == ("squash", 32)
    assert json.loads((folder / "config.json").read_text())["provenance"]["zero_shot"] is False
    assert "start" not in job_of("case", tmp_path, triplets, clip, 3).spec


@pytest.mark.slow
@pytest.mark.parametrize("name", ["covr", "case"])
def test_killed_at_random_moments_and_resumed(
    name: str, tmp_path: Path, triplets: TripletSet, clip: EncoderSpec
) -> None:
    """SIGKILL while steps, validations, saves and publishing run; the end is always the same."""
    job = job_of(name, tmp_path, triplets, clip, 16)
    assert_kills_change_nothing(job, tmp_path, steps=16, kills=5, longest=4)
