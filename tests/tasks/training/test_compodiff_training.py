"""The training of CompoDiff's denoiser: resumed, published, and used by the method's stage."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.captured_graphs import capture_graphs
from tests.fakes.filled_tables import fill
from tests.fakes.small_trainings import run_settings

if TYPE_CHECKING:
    from tasks.training.compodiff import CompoDiffJob
    from tasks.training.triplet_sets import TripletSet

pytestmark = pytest.mark.usefixtures("one_thread")


def small_job(root: Path, triplets: TripletSet, **training: Any) -> CompoDiffJob:
    """A job whose image features are made; it trains ten steps."""
    from models.compodiff.settings import DenoiserSettings
    from models.encoders.spec import EncoderSpec
    from models.training.settings import TrainingSettings
    from tasks.stages.image_features import ImageFeatureStage
    from tasks.training.compodiff import CompoDiffJob
    from tasks.training.triplet_sets import TripletImages
    from tests.fakes.small_clip import write_small_clip

    clip = Path(triplets.root, "clip")
    if not clip.exists():
        clip.mkdir(parents=True)
        write_small_clip(clip, {"layers": 2}, merges=["r e", "re d</w>", "b l", "a d"])
    features = ImageFeatureStage(
        root=str(root),
        images=TripletImages(triplets=triplets),
        encoder=EncoderSpec(name=str(clip), device="cpu"),
    )
    fill(features)
    settings = {"batch_size": 8, "max_steps": 10, "validation": 5, "validate_every": 4}
    return CompoDiffJob(
        str(root),
        triplets,
        "",
        features,
        DenoiserSettings(depth=1, heads=2, head_width=8, timesteps=50, ema=0.9),
        TrainingSettings(**settings | {"new_learning_rate": 3e-3, "seed": 3} | training),
    ).planned()


def test_a_stopped_training_ends_with_the_weights_of_an_undisturbed_one(
    tmp_path: Path, triplets: TripletSet
) -> None:
    import safetensors.torch
    import torch

    from tasks.training.trainer import fit

    def weights(root: Path, stops: tuple[int, ...]) -> dict[str, torch.Tensor]:
        job = small_job(root, triplets)
        for stop in (*stops, 0):

            def report(step: int, total: int, loss: float, last: int = stop) -> None:
                if step == last:
                    raise KeyboardInterrupt

            network = job.new_network()
            data = job.load_data(run_settings(), network)
            try:
                fit(job, run_settings(), data, network, report)
            except (KeyboardInterrupt, SystemExit):
                assert stop
        folder = job.training_folder
        history = folder.finished()
        assert history is not None
        assert [int(point["step"]) for point in history.points] == list(range(1, 11))
        return safetensors.torch.load_file(folder.path / history.kept["file"])

    whole, resumed = weights(tmp_path / "a", ()), weights(tmp_path / "b", (2, 7))
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, resumed[name]), name
    assert any(name.startswith("network.average.") for name in whole)


def test_a_published_denoiser_answers_the_queries_of_its_backbone(
    tmp_path: Path, triplets: TripletSet, repository: Path
) -> None:
    from models.compodiff.settings import CompoDiffSettings
    from tasks.compodiff import compodiff_identity, denoiser_facts, denoiser_problem, sampler
    from tasks.training.compodiff import train_denoiser

    job = small_job(tmp_path, triplets, max_steps=3)
    made = train_denoiser.fn(job, run_settings(), {"who": "a test"})
    assert made["checkpoint"] == job.place
    # Six of the sixty triplets have no text; five are held out, and what shares their images.
    assert made["triplets"] == len(job.split().training)
    assert made["validation_triplets"] == 5
    assert {path.name for path in Path(job.place).iterdir()} == {
        *("config.json", "model.safetensors", "README.md", "curves.csv", "curves.html"),
        "cost.json",
    }
    encoder = job.features.encoder
    used = CompoDiffSettings(checkpoint=job.place)
    assert denoiser_problem(used, encoder) == ""
    assert denoiser_facts(job.place).not_zero_shot == ""
    assert denoiser_facts(job.place).trained_on.startswith("3 steps on ")
    features = job.features.table().vectors(job.split().image_ids()[:2])
    queries = sampler(used, encoder)(features, ["make it red", "larger"])
    assert queries.shape == features.shape

    other = used.model_copy(update={"sampling": used.sampling.changed(text_guidance=2.0)})
    assert compodiff_identity(other, encoder) != compodiff_identity(used, encoder)
    assert (
        "not-zero"
        in denoiser_facts(
            train_denoiser.fn(replace(job, not_zero_shot="not-zero"), run_settings(), {})[
                "checkpoint"
            ]
        ).not_zero_shot
    )
    other_backbone = encoder.changed(name=str(repository / "models/embedded/clip"))
    base = json.loads(Path(job.place, "config.json").read_text())["base"]
    assert base["weights_sha256"][:8] in denoiser_problem(used, other_backbone)
    assert "no denoiser is named" in denoiser_problem(CompoDiffSettings(), encoder)
    assert "holds no denoiser" in denoiser_problem(
        CompoDiffSettings(checkpoint=str(tmp_path / "none")), encoder
    )


@pytest.mark.slow
def test_compiled_training_is_the_same(
    tmp_path: Path, triplets: TripletSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    from tasks.training.compodiff import train_denoiser

    def weights(**training: Any) -> dict[str, torch.Tensor]:
        job = small_job(tmp_path, triplets, max_steps=3, **training)
        made = train_denoiser.fn(job, run_settings(), {})
        return load_file(Path(made["checkpoint"], "model.safetensors"))

    plain, captured = weights(), capture_graphs(monkeypatch)
    compiled = weights(compile=True)
    assert captured
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(tmp_path: Path, triplets: TripletSet) -> None:
    """SIGKILL while steps, validations, saves and publishing run; the end is always the same."""
    from tests.fakes.killed_trainings import assert_kills_change_nothing

    job = small_job(tmp_path / "features", triplets, max_steps=20)
    assert_kills_change_nothing(job, tmp_path, steps=20, kills=5, longest=4)


def test_captions_are_a_part_of_the_key_where_they_are_trained_on(
    tmp_path: Path, triplets: TripletSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = small_job(tmp_path, triplets)
    split = job.split()
    recaptioned = replace(
        split, training=tuple(replace(t, target_caption="another") for t in split.training)
    )
    assert recaptioned.content == split.content
    captioned = replace(job, network=job.network.changed(captions=0.2))
    keys = [job.key, captioned.key]
    assert keys[0] != keys[1]
    monkeypatch.setattr(type(job), "split", lambda self: recaptioned)
    same, other = (replace(each, content=each.content) for each in (job, captioned))
    assert same.key == keys[0]
    assert other.key != keys[1]
