"""Pseudo tokens as a table: one an image, whatever its shard; resumed, imported, and honest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import polars as pl
import pytest

from flows.profiles import resolve_profile
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.profile_stages import token_stage
from tasks.settings import Profile
from tasks.stages import pseudo_tokens
from tasks.stages.image_features import ImageFeatureStage
from tasks.stages.image_sets import ImageSet
from tasks.stages.pseudo_tokens import ImportedTokenStage, OtiTokenStage
from tests.fakes.pictures import jpeg

if TYPE_CHECKING:
    from tasks.stages.stage import Stage

IMAGES = 5


def ignore(count: int) -> None:
    """Progress of nobody."""


def fill(stage: Stage, shards: int | None = None) -> list[int]:
    """Make some or all missing shards of a stage and of those behind it; rows of each shard."""
    for each in stage.inputs.values():
        fill(each)
    table = stage.table()
    made = []
    for shard in table.plan(stage.planned(), stage.shard_size).shards[:shards]:
        table.publish(shard, stage.rows(shard.members, ignore))
        made.append(len(shard.members))
    return made


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a collection of five pictures and a file that is none."""
    folder = tmp_path_factory.mktemp("tokens")
    (folder / "images").mkdir()
    for seed in range(IMAGES):
        (folder / "images" / f"{seed}.jpg").write_bytes(jpeg(seed))
    ingest(Location(str(folder / "root")), folder / "images", "photos")
    return folder


def profile(place: Path, **settings: Any) -> Profile:
    chosen = {"inversion.oti.steps": 4, "shards.tokens": 2, "root": str(place / "root")}
    return resolve_profile("tiny", {**chosen, **settings})


def stage(place: Path, **settings: Any) -> OtiTokenStage:
    chosen = profile(place, **settings)
    features = ImageFeatureStage(
        root=chosen.root, images=ImageSet(collection="photos"), encoder=chosen.query_encoder
    )
    made = token_stage(chosen, features)
    assert isinstance(made, OtiTokenStage)
    return made


def tokens(stage: Stage) -> np.ndarray:
    return stage.table().vectors(stage.planned())


def test_tokens_do_not_depend_on_shards_and_are_made_once(place: Path) -> None:
    own = stage(place)
    assert fill(own) == [2, 2, 1]
    assert fill(own) == []
    whole = stage(place, **{"shards.tokens": 64})
    assert whole.spec_key == own.spec_key
    together = whole.rows(own.planned(), ignore)
    found = np.stack(together["vector"].to_numpy(zero_copy_only=False))
    np.testing.assert_allclose(found, tokens(own), atol=1e-4)
    assert len(np.unique(tokens(own).round(4), axis=0)) == IMAGES


def test_a_stopped_run_leaves_what_it_made(place: Path) -> None:
    own = stage(place, **{"inversion.oti.seed": 3})
    assert fill(own, shards=1) == [2]
    before = own.table().read(["vector"])
    assert fill(own) == [2, 1]
    after = own.table().read(["vector"])
    assert after["image_id"].to_list() == own.planned()
    kept = after.filter(pl.col("image_id").is_in(before["image_id"].implode()))
    assert kept.equals(before)


def test_the_key_follows_from_what_changes_tokens(place: Path, tmp_path: Path) -> None:
    own = stage(place)
    words = tmp_path / "words.txt"
    words.write_text(Path(own.vectors.concepts).read_text() + "\n\n")
    assert stage(place, **{"inversion.concepts": str(words)}).spec_key == own.spec_key
    words.write_text("red circle\n")
    assert stage(place, **{"inversion.concepts": str(words)}).spec_key != own.spec_key
    phrases = tmp_path / "phrases.json"
    phrases.write_text(json.dumps({"red circle": ["a photo of a red circle"]}))
    assert stage(place, **{"inversion.phrases": str(phrases)}).spec_key != own.spec_key
    assert stage(place, **{"inversion.oti.steps": 5}).spec_key != own.spec_key


def test_an_image_without_a_feature_says_so(place: Path, tmp_path: Path) -> None:
    own = stage(place, **{"inversion.oti.seed": 5})
    fill(own.vectors)
    features = own.images.table()
    planned = own.planned()
    for shard in features.plan(planned, 64).shards:
        features.publish(shard, own.images.rows(shard.members, ignore))
    rows = own.rows([planned[0], "f" * 64], ignore)
    assert rows["status"].to_pylist() == ["ok", "missing_input"]
    assert rows["reason"].to_pylist() == ["", "the image has no feature"]
    assert rows["vector"][1].as_py() is None


def test_the_statuses_of_a_shard_are_read_once(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not once for each of its images."""
    own = stage(place)
    fill(own)
    usable = Mock(wraps=pseudo_tokens.usable_images)
    monkeypatch.setattr(pseudo_tokens, "usable_images", usable)
    assert len(own.rows(own.planned(), ignore)) == IMAGES
    usable.assert_called_once()


def test_concepts_without_phrases_are_left_out(place: Path, tmp_path: Path) -> None:
    phrases = tmp_path / "phrases.json"
    phrases.write_text(json.dumps({"red circle": ["a photo of a blue star"]}))
    own = stage(place, **{"inversion.phrases": str(phrases)})
    for each in own.inputs.values():
        fill(each)
    with pytest.raises(ValueError, match=r"none of the concepts .* has a phrase"):
        own.rows(own.planned(), ignore)


def test_imported_tokens_take_the_place_of_own_ones(place: Path, tmp_path: Path) -> None:
    import torch

    from storage.exchange.sources import open_sources
    from tasks.imported_features import import_features, searle_folder

    given = np.random.default_rng(0).normal(size=(3, 128)).astype(np.float32)
    torch.save(torch.from_numpy(given), tmp_path / "ema_oti_pseudo_tokens.pt")
    (tmp_path / "image_names.json").write_text(json.dumps(["0", "3", "1"]))
    (tmp_path / "hyperparameters.json").write_text(json.dumps({"clip_model_name": "ViT-B/32"}))
    root = str(place / "root")
    folder = searle_folder(tmp_path)
    found = import_features(root, folder, open_sources([folder.vectors, folder.names]), "photos")
    chosen = profile(place, **{"inversion.tokens": found.spec_key})
    features = ImageFeatureStage(
        root=root, images=ImageSet(collection="photos"), encoder=chosen.query_encoder
    )
    imported = token_stage(chosen, features)
    assert isinstance(imported, ImportedTokenStage)
    fill(imported)
    rows = imported.table().read(["vector", "status", "reason"])
    assert sorted(rows["status"].to_list()) == ["missing_input"] * 2 + ["ok"] * 3
    good = rows.filter(pl.col("status") == "ok")["vector"].to_numpy()
    assert sorted(good[:, 0].tolist()) == pytest.approx(sorted(given[:, 0].tolist()))
    assert "holds no token of the image" in "".join(rows["reason"].to_list())
