"""N of target captions as a setting of its own: fifteen captions encoded once give every smaller N.

Captions are written by hand here, so no captioner runs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flows.profiles import ProfileError, resolve_profile
from storage.collections.collection import ingest
from storage.locations.location import Location
from storage.tables.plans import Shard
from tasks.planner import gallery_stages
from tasks.settings import Profile
from tasks.stages.caption_features import CaptionFeatureStage
from tasks.stages.stage import in_order
from tests.fakes.drawn import draw_folder, small_profile
from tests.fakes.filled_tables import fill

N = 15
WORDS = ("red", "green", "blue", "small", "large", "round", "square", "striped", "dotted", "plain")


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    """Four pictures with fifteen captions each; those of the last one failed."""
    profile = small_profile(tmp_path / "tables", captions=N, shard=4)
    draw_folder(tmp_path / "pictures", 4, seed=7)
    ingest(Location(profile.root), tmp_path / "pictures", "drawn")
    stage = gallery(profile).captions
    keys = stage.planned()
    texts = [captions(place) for place in range(3)]
    rows = stage.table().rows(
        image_id=keys,
        captions=[*texts, None],
        n=[N, N, N, None],
        raw=[*texts, []],
        status=["ok", "ok", "ok", "engine_error"],
        reason=["", "", "", "no answer"],
    )
    stage.table().publish(Shard.of(keys), rows)
    return profile


def captions(place: int) -> list[str]:
    """Fifteen captions of different lengths, one of them twice."""
    own = [f"a {' '.join(WORDS[place : place + 1 + i % 6])} shape {i}" for i in range(N - 1)]
    return [*own, own[0]]


def test_it_is_a_setting_of_a_profile() -> None:
    assert resolve_profile("tiny").cvsi.target_captions == 0
    assert resolve_profile("tiny", {"cvsi.target_captions": 5}).cvsi.captions_of_target == 5
    with pytest.raises(ProfileError, match=r"cvsi\.target_captions"):
        resolve_profile("tiny", {"cvsi.target_captions": -1})


def gallery(profile: Profile, **cvsi: object) -> CaptionFeatureStage:
    changed = profile.model_copy(update={"cvsi": profile.cvsi.changed(**cvsi)})
    stage = gallery_stages(changed, "drawn")["captions"]
    assert isinstance(stage, CaptionFeatureStage)
    return stage


@pytest.mark.parametrize("mean", ["renormalised", "raw_mean"])
def test_vectors_of_fifteen_captions_give_every_smaller_number_without_encoding(
    profile: Profile, mean: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.engines import load_encoder

    first = gallery(profile, target_captions=1, caption_mean=mean)
    assert first.vectors is not None
    assert fill(first.vectors) == 4
    encoder = load_encoder(first.encoder)
    monkeypatch.delattr("tasks.stages.caption_features.load_encoder")
    keys = first.planned()
    for n in range(1, N):
        stage = gallery(profile, target_captions=n, caption_mean=mean)
        assert [fill(each) for each in in_order([stage])] == [0, 0, 4]
        expected = []
        for place in range(3):
            vectors = [encoder.encode_texts([text])[0] for text in captions(place)[:n]]
            if mean == "renormalised":
                vectors = [vector / np.linalg.norm(vector) for vector in vectors]
            expected.append(np.mean(vectors, axis=0))
        np.testing.assert_allclose(stage.table().vectors(keys[:3]), expected, atol=1e-6, rtol=1e-6)
        rows = stage.table().read(["n_captions", "status"], keys)
        assert rows["n_captions"].to_list() == [n, n, n, None]
        assert rows["status"].to_list() == ["ok", "ok", "ok", "no_captions"]


def test_all_captions_have_the_key_they_had_and_need_no_vectors(profile: Profile) -> None:
    stage = gallery(profile)
    assert (stage.vectors, stage.first) == (None, 0)
    assert "first" not in stage.spec
    assert gallery(profile, target_captions=N).spec == stage.spec
    few = gallery(profile, target_captions=3)
    assert few.spec == {**stage.spec, "first": 3}
    stored = stage.model_copy(update={"vectors": few.vectors})
    assert stored.spec_key == stage.spec_key
    fill(stage)
    encoded = stage.table().vectors(stage.planned()[:3])
    assert few.vectors is not None
    fill(few.vectors)
    averaged = stored.rows(stored.planned(), lambda count: None)["vector"].to_pylist()[:3]
    np.testing.assert_allclose(averaged, encoded, atol=1e-6, rtol=1e-6)


def test_more_captions_than_of_references_are_captions_of_their_own(profile: Profile) -> None:
    more = gallery(profile, target_captions=20)
    assert (more.captions.sampling.n, more.first, more.vectors) == (20, 0, None)
    fewer = gallery(profile, target_captions=5)
    assert fewer.captions == gallery(profile).captions
