"""Transparency and EXIF orientation as switches, and galleries with images that lack features."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flows.profiles import resolve_profile
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.planner import gallery_stages, plan_evaluation
from tasks.profile_stages import caption_stage
from tasks.query_sets import BenchmarkRef, image_folder, load_query_set
from tasks.scoring.scores import score_ranking
from tasks.settings import Profile
from tasks.stages.image_features import ImageFeatureStage
from tasks.stages.rankings import ranking_protocol
from tasks.stages.stage import Stage, in_order
from tests.fakes.pictures import encoded, pixels

AS_PUBLISHED = {"pictures.alpha": "dropped", "pictures.orientation": "stored"}


def see_through_and_turned() -> bytes:
    """A PNG whose right half is transparent, to be turned by its EXIF."""
    image = pixels(3, 48, 32).convert("RGBA")
    image.paste((10, 200, 30, 0), (24, 0, 48, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, "PNG", exif=exif)


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    """Four pictures, ingested as the collection `drawn`."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for seed in range(3):
        (folder / f"{seed}.png").write_bytes(encoded(pixels(seed), "PNG"))
    (folder / "odd.png").write_bytes(see_through_and_turned())
    root = str(tmp_path / "tables")
    ingest(Location(root), str(folder), "drawn")
    return resolve_profile("tiny", {"root": root})


def image_features(profile: Profile) -> ImageFeatureStage:
    """The stage of a collection's image features."""
    (stage,) = gallery_stages(profile, "drawn", "image-only").values()
    assert isinstance(stage, ImageFeatureStage)
    return stage


def fill(stage: Stage, failing: frozenset[str] = frozenset()) -> None:
    """Make a stage's rows without Prefect; rows of some keys say that they failed."""
    table = stage.table()
    for shard in table.plan(stage.planned(), stage.shard_size).shards:
        rows = stage.rows(shard.members, lambda count: None).to_pydict()
        key = rows[table.schema.key]
        for place, each in enumerate(key):
            if each in failing:
                rows["status"][place], rows["reason"][place] = "decode_error", "made to fail"
        table.publish(shard, table.rows(**{name: rows[name] for name in rows}))


def test_features_are_those_of_the_picture_as_the_switches_read_it(profile: Profile) -> None:
    from tasks.engines import load_encoder

    data = see_through_and_turned()
    stored = Image.open(io.BytesIO(data)).convert("RGB")  # what published programs do
    white = Image.new("RGBA", (48, 32), "white")
    upright = Image.alpha_composite(white, Image.open(io.BytesIO(data)))
    upright = upright.convert("RGB").transpose(Image.Transpose.ROTATE_270)
    for settings, picture in (({}, upright), (AS_PUBLISHED, stored)):
        chosen = resolve_profile("tiny", {"root": profile.root, **settings})
        stage = image_features(chosen)
        (odd,) = (key for key, image in read(stage) if image == data)
        made = stage.rows([odd], lambda count: None)
        expected = load_encoder(stage.encoder).encode_images([picture])
        np.testing.assert_allclose(made["vector"].to_pylist(), expected, atol=1e-6)


def read(stage: ImageFeatureStage) -> list[tuple[str, bytes]]:
    return list(stage.images.read(stage.root, stage.planned()))


def test_a_switch_makes_another_key_and_its_default_does_not(profile: Profile) -> None:
    spelt_out = {"pictures.alpha": "white", "pictures.orientation": "upright"}
    for make in (image_features, lambda chosen: caption_stage(chosen, "drawn")):
        keys = {
            make(resolve_profile("tiny", {"root": profile.root, **own})).spec_key
            for own in (
                {},
                spelt_out,
                {"pictures.threads": 3},
                AS_PUBLISHED,
                {"pictures.alpha": "dropped"},
            )
        }
        assert len(keys) == 3
        assert "pictures" not in make(profile).spec


@pytest.mark.parametrize(("draft", "size"), [(0, (800, 640)), (1, (200, 160)), (2, (400, 320))])
def test_drafts_are_no_smaller_than_the_encoder_needs_at_each_margin(
    profile: Profile, tmp_path: Path, draft: int, size: tuple[int, int]
) -> None:
    from tasks.engines import load_encoder

    data = encoded(pixels(5, 800, 640), "JPEG", quality=90)
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "a.jpg").write_bytes(data)
    ingest(Location(profile.root), str(tmp_path / "large"), "large")
    chosen = resolve_profile("tiny", {"root": profile.root, "pictures.draft": draft})
    (stage,) = gallery_stages(chosen, "large", "image-only").values()
    assert isinstance(stage, ImageFeatureStage)
    opened = Image.open(io.BytesIO(data))
    opened.draft(None, size)  # 96 pixels are needed: 640 / 4 and 640 / 2 are the next sizes above
    assert opened.size == size
    expected = load_encoder(stage.encoder).encode_images([opened.convert("RGB")])
    made = stage.rows(stage.planned(), lambda count: None)
    np.testing.assert_allclose(made["vector"].to_pylist(), expected, atol=1e-6)


def test_drafts_make_keys_of_their_own_where_engines_make_pictures_smaller() -> None:
    from tasks.stages.captions import CaptionStage

    def keys(**settings: object) -> dict[str, str]:
        own = {"root": "r", "pictures.draft": 1, **settings}
        chosen = resolve_profile("tiny", own)
        captions = caption_stage(chosen, "drawn")
        assert isinstance(captions, CaptionStage)
        return {"spec": str(captions.identity().get("pictures")), "key": captions.spec_key}

    whole = caption_stage(resolve_profile("tiny", {"root": "r"}), "drawn").spec_key
    assert keys()["spec"] == "{'draft': 1}"
    assert keys()["key"] != whole
    server = {"captioner.engine": "openai", "captioner.model": "m"}
    sent = caption_stage(resolve_profile("tiny", {"root": "r", **server}), "drawn").spec_key
    assert keys(**server) == {"spec": "None", "key": sent}  # a server is sent whole pictures


def test_each_reader_of_one_picture_gets_it_at_its_own_size() -> None:
    from tasks.settings import PictureSettings
    from tasks.stages.decoded import OnePicture

    data = encoded(pixels(1, 800, 640), "JPEG")
    drafts = OnePicture(data, PictureSettings(draft=1))
    assert [drafts.at(side).size for side in (96, 224, None)] == [
        (200, 160),
        (400, 320),
        (800, 640),
    ]
    whole = OnePicture(data, PictureSettings())
    assert whole.at(96) is whole.at(None)
    assert whole.at(96).size == (800, 640)


def test_captions_are_made_of_drafts_that_suffice_for_the_processor(
    profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collections.abc import Iterable, Iterator

    from models.protocols import CaptionReply, CaptionSampling
    from tasks.stages import captions

    seen: list[tuple[int, int]] = []

    class Looking:
        def caption(
            self, images: Iterable[tuple[str, Image.Image]], sampling: CaptionSampling
        ) -> Iterator[CaptionReply]:
            for key, image in images:
                seen.append(image.size)
                yield CaptionReply(key, ("a",) * sampling.n)

    monkeypatch.setattr(captions, "load_captioner", lambda settings: Looking())
    (tmp_path / "large").mkdir()
    for seed in range(3):
        data = encoded(pixels(seed, 800, 640), "JPEG")
        (tmp_path / "large" / f"{seed}.jpg").write_bytes(data)
    ingest(Location(profile.root), str(tmp_path / "large"), "large")
    for draft, size in ((0, (800, 640)), (1, (200, 160))):
        chosen = resolve_profile("tiny", {"root": profile.root, "pictures.draft": draft})
        stage = caption_stage(chosen, "large")
        made = stage.rows(stage.planned(), lambda count: None)
        assert set(made["status"].to_pylist()) == {"ok"}
        assert seen == [size] * 3  # the processor's size is 96
        seen.clear()


def test_a_search_counts_the_images_that_lack_features(profile: Profile) -> None:
    from tasks.search_gallery import search_gallery

    stage = image_features(profile)
    lost = stage.planned()[0]
    fill(stage, frozenset({lost}))
    image = encoded(pixels(7), "PNG")
    loose = profile.changed(allow_gaps=0.5)
    result = search_gallery(loose, "drawn", {"image": stage}, image, "red", method="image-only")
    assert (result.gallery_size, result.without_features) == (4, 1)
    assert lost not in {hit.image_id for hit in result.hits}
    assert len(result.hits) == 3


def with_gaps(tmp_path: Path) -> tuple[BenchmarkRef, dict[str, Any], frozenset[str]]:
    """A small benchmark whose ranking by images lacks two of them; rankings by method."""
    with tarfile.open(Path(__file__).parents[1] / "data" / "earlier_root.tar.xz") as packed:
        packed.extractall(tmp_path, filter="data")  # for its small drawn world
    ref = BenchmarkRef(name="cirr", root=str(tmp_path / "world" / "cirr"))
    root = str(tmp_path / "own")
    ingest(Location(root), image_folder(ref.load()), ref.collection_name)
    profile = resolve_profile("tiny", {"root": root, **AS_PUBLISHED})
    plan = plan_evaluation(profile, ref, ["image-only", "cirevl"])
    by_method = {stage.method: stage for stage in plan.rankings}
    ranking = by_method["image-only"]
    (gallery,) = ranking.gallery_features.values()
    asked_about = set(load_query_set(root, ref).reference_ids())
    lost = frozenset([key for key in gallery.planned() if key not in asked_about][:2])
    for stage in in_order([ranking]):
        fill(stage, lost if stage.table_name == "image_features" else frozenset())
    return ref, by_method, lost


def test_a_result_says_how_pictures_were_read_and_how_many_lack_features(tmp_path: Path) -> None:
    ref, by_method, _ = with_gaps(tmp_path)
    ranking = by_method["image-only"]
    size = len(ref.load().galleries[""])
    said = json.loads(json.dumps(score_ranking(ranking, resamples=2).protocol, default=list))
    assert said["pictures"] == {"alpha": "dropped", "orientation": "stored"}
    assert said["gallery_size"] == {"": size}
    assert said["gallery_without_features"] == {"": 2}
    assert said["made"]["without"] == "2"
    assert "answer_tokens" not in said
    assert "captions" not in said
    edited = ranking_protocol(by_method["cirevl"])
    assert edited["answer_tokens"] == 48
    assert [each["mode"] for each in edited["captions"]] == ["nucleus"]


def test_a_gallery_whose_gaps_were_closed_is_ranked_again(tmp_path: Path) -> None:
    ref, by_method, lost = with_gaps(tmp_path)
    before = by_method["image-only"]
    (gallery,) = before.gallery_features.values()
    table = gallery.table()
    for shard in table.plan(gallery.planned(), 64, retry_failed=True).shards:
        assert set(shard.members) == lost
        table.publish(shard, gallery.rows(shard.members, lambda count: None))
    ranking = before.model_copy()
    assert ranking.spec_key != before.spec_key
    fill(ranking)
    ids = load_query_set(before.root, ref).image_ids
    found = [
        {ids[name] for names in stage.table().read(["names"])["names"] for name in names}
        for stage in (before, ranking)
    ]
    assert lost.isdisjoint(found[0])
    assert lost <= found[1]
    said = score_ranking(ranking, resamples=2).protocol
    assert said["gallery_without_features"] == {"": 0}
    assert "without" not in said["made"]
    assert "without" not in ranking.spec
