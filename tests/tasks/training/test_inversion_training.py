"""Pic2Word and SEARLE trained on images: published once, resumed, killed, and used."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydantic import TypeAdapter

from flows.profiles import resolve_profile
from models.protocols import CaptionReply
from models.textual_inversion import palavra_files
from models.textual_inversion.learner_settings import INVERSIONS
from models.textual_inversion.mapping_files import WEIGHTS_FILE, MappingError
from models.textual_inversion.refining import RefiningSettings
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.profile_stages import caption_feature_stage, image_stage, token_stage, word_stages
from tasks.stages.captions import caption_rows
from tests.fakes.captured_graphs import capture_graphs
from tests.fakes.killed_processes import killable_processes, killed
from tests.fakes.pictures import jpeg
from tests.tasks.test_pseudo_tokens import fill

if TYPE_CHECKING:
    from tasks.training.inversion import InversionJob

IMAGES = 24
SMALL: dict[str, dict[str, int]] = {"palavra": {"hidden": 16, "images_per_concept": 3}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a collection of pictures, their features, tokens and concepts."""
    folder = tmp_path_factory.mktemp("inversion")
    (folder / "images").mkdir()
    for seed in range(IMAGES):
        (folder / "images" / f"{seed}.jpg").write_bytes(jpeg(seed))
    ingest(Location(str(folder / "root")), folder / "images", "photos")
    return folder


def job(place: Path, system: str, **training: Any) -> InversionJob:
    """A small training whose inputs are made."""
    from tasks.training.inversion import InversionJob
    from tasks.training.palavra import PalavraJob

    settings = {"root": str(place / "root"), "inversion.oti.steps": 3, "cvsi.preprocess": "clip"}
    profile = resolve_profile("tiny", settings)
    record = INVERSIONS[system]
    more: dict[str, Any] = {}
    kind: type[InversionJob] = InversionJob
    images = image_stage(profile, "photos", system)
    encoder = images.encoder.changed(dtype="fp32")
    tokens = token_stage(profile, images) if record.tokens else None
    vectors, written = word_stages(profile, encoder) if record.words else (None, None)
    if record.captions:
        captions = caption_feature_stage(profile, "photos", images.encoder)
        table = captions.captions.table()
        for shard in table.plan(captions.captions.planned(), 64).shards:
            said = {m: CaptionReply(m, (f"a red {m[:3]}", "a star")) for m in shard.members}
            table.publish(shard, caption_rows(captions.captions, shard.members, said))
        fill(captions)
        kind, more = PalavraJob, {"captions": captions}
    for stage in (images, tokens, vectors, written):
        if stage is not None:
            fill(stage)
    if tokens is not None:
        more = {"tokens": tokens}
    chosen = {"batch_size": 8, "max_steps": 6, "validation": 4, "new_learning_rate": 1e-3}
    return kind(
        root=profile.root,
        system=system,
        encoder=encoder,
        images=images,
        choices=record.settings(**SMALL.get(system, {})).model_dump(mode="json"),
        training=record.training.changed(**chosen | training),
        vectors=vectors,
        phrases=profile.inversion.phrases,
        written=written,
        **more,
    ).pinned()


def train(own: InversionJob) -> dict[str, Any]:
    """Train in this process; what the flow's task returns."""
    from tasks.training.inversion import train_inversion
    from tasks.training.run_settings import RunSettings

    run = RunSettings(accelerator="cpu", log_steps=1, loggers=())
    result = train_inversion.fn(own, run)
    return result if isinstance(result, dict) else result.data


@pytest.mark.parametrize("system", ["pic2word", "searle"])
def test_a_trained_network_is_published_once_and_maps_images(place: Path, system: str) -> None:
    from tasks.engines import load_mapping, mapping_fingerprint

    own = job(place, system)
    assert TypeAdapter(type(own)).validate_json(TypeAdapter(type(own)).dump_json(own)) == own
    result = train(own)
    assert result["steps"] == 6
    assert result["images"] == IMAGES - 2  # a tenth is held out at most
    before = {path: path.stat().st_mtime_ns for path in Path(own.place).iterdir()}
    assert train(own) == result
    assert {path: path.stat().st_mtime_ns for path in Path(own.place).iterdir()} == before
    names = {path.name for path in before}
    assert names >= {"config.json", "model.safetensors", "README.md", "curves.csv", "cost.json"}
    card = Path(own.place, "README.md").read_text()
    for said in (
        f"mapping.{system}=FOLDER",
        "| backbone |",
        "| held out | 2 images |",
        "- training: `{",
    ):
        assert said in card
    assert "Not zero-shot" not in card
    config = json.loads(Path(own.place, "config.json").read_text())
    assert config["recipe"]["zero_shot"] is True
    kind = {"pic2word": "img2text", "searle": "phi"}[system]
    assert mapping_fingerprint(own.place)["kind"] == kind
    features = own.images.table().vectors(own.ids)
    assert load_mapping(own.place).tokens(features).shape == (IMAGES, 128)


@pytest.mark.slow
@pytest.mark.parametrize("system", INVERSIONS)
def test_compiled_training_is_the_same(
    place: Path, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    few = {"batch_size": 2, "validation": 1} if system == "palavra" else {}  # concepts

    def weights(**training: Any) -> dict[str, torch.Tensor]:
        made = train(job(place, system, **few, **training))
        return load_file(Path(made["checkpoint"], WEIGHTS_FILE))

    plain, captured = weights(), capture_graphs(monkeypatch)
    compiled = weights(compile=True)
    assert captured
    for name, tensor in plain.items():
        torch.testing.assert_close(compiled[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_a_set_encoder_is_published_and_its_tokens_are_a_table(place: Path) -> None:
    from tasks.engines import load_palavra
    from tasks.stages.palavra_tokens import PalavraTokenStage

    own = job(place, "palavra", batch_size=2, validation=1)
    result = train(own)
    arrays = own.arrays()
    assert result["concepts"] + result["held_out_concepts"] == len(arrays["concepts"])
    assert {len(each) for each in arrays.values()} == {len(arrays["concepts"])}
    network = load_palavra(own.place)
    assert (network.dim, network.hidden, network.width) == (128, 16, 128)
    stage = PalavraTokenStage(
        root=own.root, images=own.images, encoder=own.encoder, network=own.place
    )
    fill(stage)
    refined = stage.table().vectors(stage.planned())
    assert refined.shape == (IMAGES, 128)
    plain = stage.model_copy(update={"refining": RefiningSettings(steps=0)})
    assert plain.spec_key != stage.spec_key
    import torch

    with torch.no_grad():
        features = torch.from_numpy(own.images.table().vectors(stage.planned()))
        expected = network.encoder(features[:, None]).numpy()
    np.testing.assert_allclose(plain.tokens_of(stage.planned(), features.numpy()), expected, 1e-5)
    assert np.abs(refined - expected).max() > 1e-3
    config = Path(own.place, "config.json")
    config.write_text(config.read_text().replace('"width": 128', '"width": 64'))
    with pytest.raises(MappingError, match="does not hold the weights it states"):
        palavra_files.load_palavra(own.place)


def test_the_key_follows_from_data_and_settings(place: Path) -> None:
    own = job(place, "searle")
    assert job(place, "searle").key == own.key
    assert job(place, "searle", seed=5).key != own.key
    assert job(place, "pic2word").key != own.key
    other = replace(own, choices={**own.choices, "replace": "all_as_code"})
    assert other.key != own.key
    with pytest.raises(ValueError, match="has changed since"):
        replace(own, content="0" * 20).examples()
    with pytest.raises(ValueError, match="do not fill a batch of 100"):
        job(place, "searle", batch_size=100)


def test_training_on_shuffled_pairs_learns_nothing(place: Path) -> None:
    """Pic2Word's token finds its image; where pairs are shuffled it finds one by chance."""
    import torch

    own = job(place, "pic2word", batch_size=22)
    learner = own.new_network()
    features = torch.from_numpy(own.arrays()["features"])

    def after(targets: torch.Tensor, steps: int = 60) -> float:
        learner = own.new_network()
        optimizer = torch.optim.AdamW(learner.module.parameters(), lr=1e-3)
        for _ in range(steps):
            texts = learner.texts(features)
            similarity = torch.nn.functional.normalize(texts, dim=-1) @ targets.T
            loss = torch.nn.functional.cross_entropy(30 * similarity, torch.arange(len(features)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            return learner.eval().held_out([{"features": features}])["recall_1"]

    unit = torch.nn.functional.normalize(features, dim=-1)
    assert after(unit) > 0.7
    assert after(unit.roll(1, 0)) < 0.3
    assert learner.held_out([{"features": features}])["recall_1"] < 0.5


@pytest.fixture(scope="module")
def processes() -> Iterator[subprocess.Popen[str]]:
    """The parent of processes that may be killed."""
    with killable_processes() as parent:
        yield parent


@pytest.mark.slow
@pytest.mark.parametrize("system", ["pic2word", "searle", "palavra"])
def test_killed_trainings_end_with_the_same_weights(
    place: Path, processes: subprocess.Popen[str], tmp_path: Path, system: str
) -> None:
    import shutil

    few = {"batch_size": 2, "validation": 1} if system == "palavra" else {}
    quiet = job(place, system, max_steps=12, **few)
    train(quiet)
    shutil.copytree(place / "root", tmp_path / "root")
    shutil.rmtree(tmp_path / "root" / "checkpoints")
    shutil.rmtree(tmp_path / "root" / "manifest", ignore_errors=True)

    def moved(stage: Any) -> Any:
        if stage is None:
            return None
        changes = {name: moved(each) for name, each in stage.inputs.items()}
        return stage.model_copy(update={"root": str(tmp_path / "root"), **changes})

    names = ("images", "tokens", "vectors", "written", "captions")
    stages = {n: moved(getattr(quiet, n)) for n in names if hasattr(quiet, n)}
    own = replace(quiet, root=str(tmp_path / "root"), **stages)
    assert own.key == quiet.key
    argument = TypeAdapter(type(own)).dump_json(own).decode()
    taken = killed(processes, type(own).__name__, argument, lambda: own.is_published, 2)
    for name in ("model.safetensors", "curves.csv"):
        first, second = Path(quiet.place, name), Path(own.place, name)
        assert first.read_bytes() == second.read_bytes(), name
    assert taken >= 12


@pytest.mark.slow
def test_tokens_made_by_killed_processes_are_whole(
    place: Path, processes: subprocess.Popen[str], tmp_path: Path
) -> None:
    """SIGKILL at random moments: no token is lost, doubled or another one."""
    root = str(tmp_path / "root")
    ingest(Location(root), place / "images", "photos")
    profile = resolve_profile(
        "tiny", {"root": root, "inversion.oti.steps": 20, "shards.tokens": 4, "shards.features": 8}
    )
    stage = token_stage(profile, image_stage(profile, "photos", "searle-oti"))

    def done() -> bool:
        return not stage.table().plan(stage.planned(), stage.shard_size).shards

    killed(processes, "OtiTokenStage", stage.model_dump_json(), done, 3)
    rows = stage.table().read(["vector", "status"])
    assert rows["image_id"].to_list() == sorted(stage.planned())
    assert sum(len(part) for part in stage.table().iter_parts(["status"])) == IMAGES
    whole = stage.rows(stage.planned(), lambda count: None)  # in one batch, undisturbed
    expected = np.stack(whole["vector"].to_numpy(zero_copy_only=False))
    np.testing.assert_allclose(rows["vector"].to_numpy(), expected, atol=1e-4)


def test_what_a_token_network_was_trained_on(tmp_path: Path) -> None:
    from tasks.mapping_facts import token_network_trained_on

    summary = {"steps": 1500, "images": 3808, "collection": "photos"}
    (tmp_path / "config.json").write_text(json.dumps({"recipe": {"summary": summary}}))
    said = "1,500 steps on 3,808 images of photos"
    assert token_network_trained_on(str(tmp_path)) == said
    (tmp_path / "config.json").write_text(json.dumps({"recipe": {"steps": 3}}))
    assert token_network_trained_on(str(tmp_path)) == ""
    assert token_network_trained_on("there/SEARLE_ViT-B32.pt") == "published SEARLE_ViT-B32.pt"
