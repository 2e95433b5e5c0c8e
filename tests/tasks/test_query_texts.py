"""Texts in place of those of a benchmark's queries: from files, and as a writer left them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from models.triplets import triplet_id
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.planner import plan_evaluation
from tasks.profile_stages import text_stage
from tasks.query_sets import (
    BenchmarkRef,
    found_texts,
    image_folder,
    load_query_set,
    protocol_of,
)
from tasks.query_texts import QueryTexts, file_texts, given_texts, written_texts
from tasks.scoring.making import engine_words, made_by
from tasks.stages.triplets import QueryTextStage
from tests.fakes.benchmark_layouts import CIRR_NAMES, write_cirr
from tests.fakes.difference_server import difference, triplet_profile
from tests.fakes.drawn import draw_folder
from tests.fakes.openai_server import FakeOpenAIServer

QUERIES = {"100": "is red", "101": "has two dogs"}


@pytest.fixture
def ref(tmp_path: Path) -> BenchmarkRef:
    """A CIRR-like benchmark of two queries, ingested."""
    folder = write_cirr(tmp_path / "cirr")
    for name, picture in zip(CIRR_NAMES, draw_folder(folder / "dev", 8, seed=5), strict=True):
        picture.rename(picture.with_name(f"{name}.png"))
    ref = BenchmarkRef(name="cirr", root=str(folder), split="val")
    ingest(Location(str(tmp_path / "tables")), image_folder(ref.load()), ref.collection_name)
    return ref


def known(root: str, ref: BenchmarkRef, texts: QueryTexts) -> BenchmarkRef:
    """The benchmark with texts whose content is known."""
    own = load_query_set(root, ref)
    found = found_texts(root, texts, own.benchmark, own.image_ids)
    return ref.with_texts(texts.model_copy(update={"content": found.content, "label": "other"}))


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps({row["query_id"]: row["text"] for row in rows}))
    frame = pl.DataFrame(rows)
    if path.suffix == ".csv":
        frame.write_csv(path)
    if path.suffix == ".jsonl":
        frame.write_ndjson(path)
    if path.suffix == ".parquet":
        frame.with_columns(pl.col("query_id").cast(pl.Int64)).write_parquet(path)
    return path


ROWS = [{"query_id": own, "text": text} for own, text in QUERIES.items()]


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "parquet"])
def test_texts_of_a_file_are_asked_instead(ref: BenchmarkRef, tmp_path: Path, kind: str) -> None:
    root = str(tmp_path / "tables")
    path = write(tmp_path / f"texts.{kind}", ROWS)
    other = known(root, ref, given_texts(str(path)))
    own, asked = load_query_set(root, ref), load_query_set(root, other)
    assert {q.query_id: q.texts for q in asked.benchmark.queries} == {
        key: (text,) for key, text in QUERIES.items()
    }
    assert {key: item.texts for key, item in asked.items.items()} == {
        ("", key): (text,) for key, text in QUERIES.items()
    }
    assert asked.reference_ids() == own.reference_ids()
    assert asked.gallery_ids() == own.gallery_ids()
    assert protocol_of(ref, own).get("texts") is None
    assert protocol_of(other, asked)["texts"] == {
        "source": "file",
        "content": other.texts.content,
        "label": "other",
        "without": 0,
    }


def test_the_identity_of_texts_is_their_content(ref: BenchmarkRef, tmp_path: Path) -> None:
    root = str(tmp_path / "tables")
    paths = [write(tmp_path / f"{kind}.{kind}", ROWS) for kind in ("csv", "json")]
    changed = write(tmp_path / "changed.csv", [ROWS[0], {"query_id": "101", "text": "is wet"}])
    first, same, other = (known(root, ref, given_texts(str(p))) for p in (*paths, changed))
    assert first.texts.content == same.texts.content != other.texts.content
    profile = triplet_profile(root, "http://127.0.0.1:1/v1")
    keys = [
        plan_evaluation(profile, each, ["text-only"]).rankings[0]
        for each in (ref, first, same, other)
    ]
    assert keys[1].spec_key == keys[2].spec_key
    assert len({stage.spec_key for stage in keys}) == 3
    assert "texts" not in keys[0].spec
    assert keys[1].spec["texts"] == ["file", first.texts.content]
    assert [made_by(stage)["texts"] for stage in keys[:2]] == ["annotated", "other"]
    tables = {stage.query_features["text"].spec_key for stage in keys}
    assert len(tables) == 1  # features of equal texts are found again


def test_a_file_that_was_changed_after_planning_is_refused(
    ref: BenchmarkRef, tmp_path: Path
) -> None:
    root = str(tmp_path / "tables")
    path = write(tmp_path / "texts.csv", ROWS)
    other = known(root, ref, given_texts(str(path)))
    write(path, [ROWS[0], {"query_id": "101", "text": "is wet"}])
    with pytest.raises(ValueError, match="are not those that this run was planned with"):
        load_query_set(root, other)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, {"query_id": "102", "text": "x"}], "unknown query of cirr val '102'"),
        (ROWS[:1], "1 of 2 queries of cirr val has no text: 101"),
        ([*ROWS, ROWS[1]], "query 101 of cirr val has two texts"),
        ([ROWS[0], {"query_id": "101", "text": " "}], "the text of query 101 of cirr val is empty"),
        ([{"query_id": "B0001", "text": "x"}], "unknown query of cirr val 'B0001'"),
        ([{"pairid": "100", "caption": "x"}], "should be a JSON object"),
    ],
)
def test_a_file_of_other_queries_is_refused(
    ref: BenchmarkRef, tmp_path: Path, rows: list[dict[str, str]], message: str
) -> None:
    path = tmp_path / "texts.jsonl"
    pl.DataFrame(rows).write_ndjson(path)
    with pytest.raises(ValueError, match=message):
        file_texts(str(path), ref.load())


def test_a_doubled_key_of_a_json_object_is_refused(ref: BenchmarkRef, tmp_path: Path) -> None:
    path = tmp_path / "texts.json"
    path.write_text('{"100": "a", "101": "b", "100": "c"}')
    with pytest.raises(ValueError, match="query 100 of cirr val has two texts"):
        file_texts(str(path), ref.load())


@pytest.mark.parametrize("given", ["genrated", "texts.txt", "absent.csv"])
def test_texts_that_are_none_are_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"did you mean 'generated'|unknown texts|no file"):
        given_texts(given)


# --------------------------------------------------------------------------- written texts


@pytest.fixture
def server() -> Iterator[FakeOpenAIServer]:
    """Tells true differences."""
    with FakeOpenAIServer(then=difference) as running:
        yield running


def write_texts(stage: QueryTextStage, words: dict[str, str], failed: str = "") -> None:
    """Caption each image with given words, one of them in vain; then have the texts written."""
    table = stage.captions.table()
    for shard in table.plan(stage.captions.planned(), 100).shards:
        bad = [key == failed for key in shard.members]
        texts = [None if b else [words[key]] for key, b in zip(shard.members, bad, strict=True)]
        table.publish(
            shard,
            table.rows(
                image_id=list(shard.members),
                captions=texts,
                n=[None if b else 1 for b in bad],
                raw=[[words[key]] for key in shard.members],
                status=["engine_error" if b else "ok" for b in bad],
                reason=["too dark" if b else "" for b in bad],
            ),
        )
    for shard in stage.table().plan(stage.planned(), 100).shards:
        stage.table().publish(shard, stage.rows(shard.members, lambda count: None))


def test_texts_are_written_from_captions_of_reference_and_annotated_target(
    ref: BenchmarkRef, tmp_path: Path, server: FakeOpenAIServer
) -> None:
    root = str(tmp_path / "tables")
    stage = text_stage(triplet_profile(root, server.base_url), ref)
    ids = load_query_set(root, ref).image_ids
    pairs = {"100": (ids[CIRR_NAMES[0]], ids[CIRR_NAMES[3]])}
    pairs["101"] = (ids[CIRR_NAMES[7]], ids[CIRR_NAMES[2]])
    assert sorted(stage.planned()) == sorted(triplet_id(*pair) for pair in pairs.values())
    assert stage.captions.planned() == sorted({i for pair in pairs.values() for i in pair})
    words = {image: f"thing{image[:6]} on grass" for pair in pairs.values() for image in pair}
    write_texts(stage, words, failed=pairs["101"][1])
    made = known(root, ref, QueryTexts(source="generated", place=stage.spec_key))
    asked = load_query_set(root, made)
    told = f"now with {words[pairs['100'][1]].split()[0]}"
    assert {key: item.texts for key, item in asked.items.items()} == {("", "100"): (told,)}
    assert asked.not_asked() == [
        f"query 101 has no text: missing_input: no caption: {pairs['101'][1]}"
    ]
    assert protocol_of(made, asked)["texts"]["without"] == 1  # type: ignore[index]
    assert len(server.requests) == 1


@pytest.mark.parametrize("source", ["generated", "file"])
def test_texts_are_known_and_named_before_anything_is_planned(
    ref: BenchmarkRef, tmp_path: Path, server: FakeOpenAIServer, source: str
) -> None:
    """The texts are made already, so that no server of Prefect is needed."""
    from prefect import flow

    from flows.query_texts import with_texts
    from flows.running import RunLog
    from tasks.unrecorded import run_unrecorded

    root = str(tmp_path / "tables")
    profile = triplet_profile(root, server.base_url)
    stage, path = text_stage(profile, ref), write(tmp_path / "texts.csv", ROWS)
    write_texts(stage, {image: f"thing{image[:6]}" for image in stage.captions.planned()})
    given = given_texts(str(path) if source == "file" else source)

    @flow
    def known_texts() -> BenchmarkRef:
        return with_texts(profile, ref.with_texts(given), RunLog())

    made: BenchmarkRef = run_unrecorded(known_texts, {})
    assert made.with_texts(ref.texts) == ref
    assert made.texts == known(root, ref, made.texts).texts.model_copy(
        update={"label": made.texts.label}
    )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (
        made.texts.label
        == {
            "file": f"from texts.csv (sha256 {digest[:8]})",
            "generated": "generated by openai-server edit-model, prompt instructcir_difference, "
            f"captions of {engine_words(profile.instructcir.captioner)}",
        }[source]
    )
    assert with_texts(profile, ref, RunLog()) == ref


def test_pairs_that_no_text_was_written_for_say_so(
    ref: BenchmarkRef, tmp_path: Path, server: FakeOpenAIServer
) -> None:
    root = str(tmp_path / "tables")
    stage = text_stage(triplet_profile(root, server.base_url), ref)
    stage.table()
    own = load_query_set(root, ref)
    found = written_texts(root, stage.spec_key, own.benchmark, own.image_ids)
    assert found.texts == {}
    assert set(found.without.values()) == {"missing: no text was written yet"}


def test_nothing_is_planned_from_texts_that_are_not_made(ref: BenchmarkRef, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="generated texts of cirr-val are not made yet"):
        load_query_set(str(tmp_path / "tables"), ref.with_texts(given_texts("generated")))
