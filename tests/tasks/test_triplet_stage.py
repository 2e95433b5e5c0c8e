"""The triplet stage over captions written by hand: rows, nesting, and the page about them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from models.triplets import triplet_id
from storage.collections.collection import Collection, ingest
from storage.locations.location import Location
from tasks.report.triplets import build_triplet_report, markdown, notes_on, stage_quality
from tasks.stages.pair_samples import PairSample, PairSource
from tasks.stages.triplets import TripletStage
from tests.fakes.difference_server import captions_in, difference, triplet_profile
from tests.fakes.drawn import draw_folder
from tests.fakes.filled_tables import fill
from tests.fakes.openai_server import FakeOpenAIServer, Reply, chat, error

IMAGES = 10


@pytest.fixture
def server() -> Iterator[FakeOpenAIServer]:
    """Tells true differences."""
    with FakeOpenAIServer(then=difference) as running:
        yield running


@pytest.fixture
def root(tmp_path: Path) -> str:
    """A collection of ten pictures in two classes."""
    draw_folder(tmp_path / "pictures" / "north", IMAGES // 2, seed=41)
    draw_folder(tmp_path / "pictures" / "south", IMAGES // 2, seed=42)
    place = str(tmp_path / "root")
    ingest(Location(place), tmp_path / "pictures", "drawn")
    return place


def stage_of(root: str, server: FakeOpenAIServer, count: int, **sample: Any) -> TripletStage:
    """The stage of the first pairs, its captions made by `caption`."""
    from flows.generate_triplets import triplet_stage

    pairs = PairSample(sources=(PairSource(collection="drawn"),), count=count, **sample)
    return triplet_stage(triplet_profile(root, server.base_url, shard=8), pairs)


def caption(stage: TripletStage, failed: str = "") -> dict[str, str]:
    """Caption each image with words of its own; one of them fails."""
    table, ids = stage.captions.table(), stage.captions.planned()
    texts = {image: f"thing{image[:6]} on grass" for image in ids}
    for shard in table.plan(ids, 100).shards:
        bad = [key == failed for key in shard.members]
        table.publish(
            shard,
            table.rows(
                image_id=list(shard.members),
                captions=[
                    None if b else [texts[key]] for key, b in zip(shard.members, bad, strict=True)
                ],
                n=[None if b else 1 for b in bad],
                raw=[[texts[key]] for key in shard.members],
                status=["engine_error" if b else "ok" for b in bad],
                reason=["too dark" if b else "" for b in bad],
            ),
        )
    return texts


def test_a_row_for_every_pair_with_its_place_captions_and_text(
    root: str, server: FakeOpenAIServer
) -> None:
    stage = stage_of(root, server, 20)
    texts = caption(stage)
    fill(stage)
    pairs = stage.pairs.pairs(root)
    rows = stage.table().read().sort("position").to_dicts()
    assert len(rows) == 20
    assert len(server.requests) == 20
    classes = dict(
        Collection.open(Location(root), "drawn").rows().select("image_id", "meta_class").iter_rows()
    )
    for place, (row, pair) in enumerate(zip(rows, pairs, strict=True)):
        assert classes[pair.reference] == classes[pair.target] == pair.meta_class
        assert row == {
            "triplet_id": triplet_id(pair.reference, pair.target),
            "position": place,
            "reference": pair.reference,
            "target": pair.target,
            "source": "drawn",
            "meta_class": pair.meta_class,
            "reference_caption": texts[pair.reference],
            "target_caption": texts[pair.target],
            "text": f"now with {texts[pair.target].split()[0]}",
            "attempts": 1,
            "raw": f"now with {texts[pair.target].split()[0]}",
            "answered_by": "edit-model",
            "status": "ok",
            "reason": "",
        }


def test_more_pairs_add_rows_to_the_same_table(root: str, server: FakeOpenAIServer) -> None:
    from flows.generate_triplets import triplet_set

    small, large = stage_of(root, server, 12), stage_of(root, server, 30)
    caption(large)
    assert small.spec_key == large.spec_key
    assert small.captions.spec_key == large.captions.spec_key
    assert set(small.captions.planned()) <= set(large.captions.planned())
    fill(small)
    before = small.table().read()
    fill(large)
    after = large.table().read().sort("position")
    assert len(server.requests) == len(after) == 30
    assert after.head(12).equals(before.sort("position"))
    first, whole = triplet_set(small), triplet_set(large)
    assert whole.first(12) == first
    assert whole.triplets()[:12] == first.triplets()
    assert fill(small) == fill(large) == 0


def test_what_changes_the_rows_changes_the_table(root: str, server: FakeOpenAIServer) -> None:
    stage = stage_of(root, server, 5)
    others = [
        stage_of(root, server, 5, seed=1),
        stage.model_copy(update={"temperature": 0.5}),
        stage.model_copy(update={"attempts": 2}),
        stage.model_copy(
            update={
                "pairs": PairSample(sources=(PairSource(collection="drawn", weight=2),), count=5)
            }
        ),
        stage.model_copy(
            update={
                "pairs": PairSample(
                    sources=(PairSource(collection="drawn", within="collection"),), count=5
                )
            }
        ),
    ]
    assert len({stage.spec_key, *(other.spec_key for other in others)}) == 6
    spec = stage.table().spec
    assert "count" not in json.dumps(spec["pairs"])
    assert root not in json.dumps(spec)
    assert server.base_url not in json.dumps(spec)


def test_an_image_without_a_caption_makes_rows_that_say_so(
    root: str, server: FakeOpenAIServer, tmp_path: Path
) -> None:
    stage = stage_of(root, server, 40)  # all pairs there are
    victim = stage.pairs.ids(root)[3]
    caption(stage, failed=victim)
    fill(stage)
    rows = stage.table().read()
    missing = rows.filter(pl.col("status") == "missing_input")
    assert len(missing) == 2 * (IMAGES // 2 - 1)
    assert all(victim in pair for pair in missing.select("reference", "target").iter_rows())
    assert missing["reason"].unique().to_list() == [f"no caption: {victim}"]
    assert missing["text"].null_count() == len(missing)
    assert len(server.requests) == 32
    quality = stage_quality(stage)
    assert quality.by_status == {"ok": 32, "missing_input": 8}
    notes = notes_on(stage, quality)
    assert notes[0] == ("20.0% of the pairs have no text, mostly missing_input (no caption): 8.")
    page = build_triplet_report(stage, quality, [], tmp_path / "out")
    html = page.read_text()
    assert html.count('<article class="triplet">') == 24
    assert html.count("data:image/jpeg;base64,") == 48
    assert notes[0] in html
    assert 'src="http' not in html
    facts = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert facts["by_status"] == {"ok": 32, "missing_input": 8}
    assert facts["attention"] == notes
    assert "**32 triplets** of 40 pairs, 9 images." in markdown(quality, notes)


def test_an_answer_that_utf_8_cannot_hold_spoils_its_own_row_alone(root: str) -> None:
    garbled, refused = Collection.open(Location(root), "drawn").image_ids()[:2]

    def answer(request: Mapping[str, Any]) -> Reply:
        target = captions_in(request["messages"][0]["content"])[1]
        if garbled[:6] in target:
            return chat("make it \ud800 red")
        return error(400, "no \udfff here") if refused[:6] in target else difference(request)

    with FakeOpenAIServer(then=answer) as server:
        stage = stage_of(root, server, 40)  # all pairs there are
        caption(stage)
        fill(stage)
    said = {
        garbled: ("rejected", r"the answer is not valid Unicode: 'make it \ud800 red'"),
        refused: ("engine_error", r"BadRequestError: Error code: 400 - no \udfff here"),
    }
    for image in said:
        found = stage.table().read().filter(pl.col("target") == image)
        assert found.select("status", "reason").rows() == [said[image]] * (IMAGES // 2 - 1)
    assert stage_quality(stage).by_status == {"ok": 32, "rejected": 4, "engine_error": 4}
    assert fill(stage) == 0


def test_a_table_without_any_text_still_has_a_page(
    root: str, server: FakeOpenAIServer, tmp_path: Path
) -> None:
    with FakeOpenAIServer(then=lambda request: chat("<script>alert(1)</script>")) as hostile:
        stage = stage_of(root, hostile, 6)
        caption(stage)
        fill(stage)
    quality = stage_quality(stage)
    assert quality.by_status == {"rejected": 6}
    assert {f.kind: f.count for f in quality.failures} == {"special characters": 6}
    html = build_triplet_report(stage, quality, [], tmp_path).read_text()
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html
    assert "there is nothing to train on" in html


def test_sources_as_typed() -> None:
    from flows.requests.generate_triplets import pair_sources

    assert pair_sources(["a", "b"], "collection", {"b": 2.0}) == (
        PairSource(collection="a", within="collection"),
        PairSource(collection="b", within="collection", weight=2.0),
    )
    assert pair_sources(["a", "b"], {"b": "collection"}, {}) == (
        PairSource(collection="a"),
        PairSource(collection="b", within="collection"),
    )
    with pytest.raises(ValueError, match="unknown collection in mix 'c'; known: a, b"):
        pair_sources(["a", "b"], "meta_class", {"c": 1.0})
    with pytest.raises(ValueError, match="a collection is named twice"):
        PairSample(sources=pair_sources(["a", "a"], "meta_class", {}), count=1)


def test_a_band_of_similarity_draws_pairs_by_the_features_of_a_table(
    root: str, server: FakeOpenAIServer, tmp_path: Path
) -> None:
    from flows.requests.generate_triplets import similarity_band
    from storage.tables.table import IncompleteTable

    plain = stage_of(root, server, 5)
    assert set(plain.pairs.identity(root)) == {"version", "seed", "sources", "guard"}
    band = similarity_band(triplet_profile(root, server.base_url, shard=8), [0.5, 1.0])
    stage = stage_of(root, server, 20, similarity=band)
    with pytest.raises(IncompleteTable, match="image features of drawn: nothing was made yet"):
        stage.pairs.pairs(root)
    (features,) = stage.pairs.features(root, 512)
    fill(features)
    everything = stage_of(root, server, 40)  # all pairs there are
    kept = {(p.reference, p.target) for p in stage.pairs.pairs(root)}
    vectors = dict(
        zip(features.planned(), features.table().vectors(features.planned()), strict=True)
    )
    for name in ("north", "south"):
        own = [p for p in everything.pairs.pairs(root) if p.meta_class == name]
        ranked = sorted(own, key=lambda p: -_cosine(vectors[p.reference], vectors[p.target]))
        assert {(p.reference, p.target) for p in ranked[:10]} == {
            (p.reference, p.target) for p in ranked if (p.reference, p.target) in kept
        }
    assert stage.spec_key != plain.spec_key
    caption(stage)
    fill(stage)
    build_triplet_report(stage, stage_quality(stage), [], tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "quality.json").read_text())
    assert list(facts["similarity"]) == ["10 %", "50 %", "90 %"]
    assert "band of each class&#39;s pairs" in (tmp_path / "out" / "triplets.html").read_text()
    with pytest.raises(ValueError, match=r"two shares LOW,HIGH, such as 0\.5,1; not \[0\.5\]"):
        similarity_band(triplet_profile(root, server.base_url, shard=8), [0.5])


def _cosine(one: Any, other: Any) -> float:
    return float(one @ other) / float((one @ one) * (other @ other)) ** 0.5
