"""Pictures edited elsewhere and here, from a manifest to rankings; the encoder is the judge."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from deployments.cli import main
from embedded_world.benchmarks import WorldSize, write_world
from embedded_world.drawn_edits import main as draw_edits
from embedded_world.drawn_edits import write_drawn_edits
from flows.profiles import resolve_profile
from flows.requests.checks import require_editor, require_methods
from storage.benchmarks.records import Query
from storage.collections.collection import ingest
from storage.collections.decoding import decode_image
from storage.exchange.sources import ExchangeError
from storage.locations.location import Location
from tasks.engines import load_encoder
from tasks.imported_pictures import import_pictures
from tasks.methods import runnable_methods, why_not_ready
from tasks.planner import plan_evaluation, query_stages
from tasks.profile_stages import picture_stage
from tasks.query_sets import BenchmarkRef, OneQuery, image_folder, load_query_set
from tasks.report.example_queries import example_queries
from tasks.report.records import Strip
from tasks.scoring.ledger import label_of
from tasks.scoring.making import made_by, named, names_of
from tasks.settings import Profile
from tasks.stages.edited_features import EditedQueryStage
from tasks.stages.rankings import RankingStage, ranking_protocol
from tests.fakes.drawn import small_settings
from tests.fakes.filled_tables import fill
from tests.fakes.killed_processes import killable_processes, killed

METHOD = "instructpix2pix"
SIZE = WorldSize(subsets=2, circo_queries=4, fashion_queries=2, distractors=12)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Benchmarks and a root in which they are ingested."""
    folder = tmp_path_factory.mktemp("edits")
    write_world(folder, SIZE, seed=62)
    for name in ("circo", "fashioniq"):
        place = reference(folder, name)
        ingest(Location(str(folder / "root")), image_folder(place.load()), place.collection_name)
    return folder


def reference(world: Path, name: str) -> BenchmarkRef:
    return BenchmarkRef(name=name, root=str(world / name))


def profile(world: Path, **editor: Any) -> Profile:
    settings = small_settings(world / "root", captions=2, shard=3)
    return resolve_profile("tiny", settings | {f"editor.{k}": v for k, v in editor.items()})


def imported(world: Path, key: str) -> Profile:
    return profile(world, engine="imported", pictures=key)


def targets_as_pictures(world: Path, ref: BenchmarkRef, folder: Path, count: int) -> Path:
    """A manifest that gives the first queries their target image as the edited picture."""
    benchmark = ref.load()
    folder.mkdir()
    records = []
    for query in benchmark.queries[:count]:
        data = Path(benchmark.image_paths[target_of(query)]).read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        (folder / digest).write_bytes(data)
        own = Path(benchmark.image_paths[query.reference]).read_bytes()
        records.append(
            {
                "reference_sha256": hashlib.sha256(own).hexdigest(),
                "text": query.texts[0],
                "image": digest,
                "image_sha256": digest,
                "editor": "drawn",
            }
        )
    place = folder / "manifest.jsonl"
    place.write_text("".join(json.dumps(each) + "\n" for each in records), encoding="utf-8")
    return place


def target_of(query: Query) -> str:
    return query.targets[0]


def ranked(own: Profile, ref: BenchmarkRef) -> tuple[RankingStage, int]:
    plan = plan_evaluation(own, ref, [METHOD])
    made = sum(fill(stage) for stage in (*plan.upstream, *plan.rankings))
    return plan.rankings[0], made


def rows_of(stage: RankingStage) -> dict[str, dict[str, Any]]:
    return {row["query_id"]: row for row in stage.table().read().iter_rows(named=True)}


@pytest.mark.parametrize("name", ["circo", "fashioniq"])
def test_a_query_is_searched_by_its_picture_and_fails_without_one(
    world: Path, tmp_path: Path, name: str
) -> None:
    ref = reference(world, name)
    queries = ref.load().queries
    count = len(queries) - 1
    done = import_pictures(
        str(world / "root"), targets_as_pictures(world, ref, tmp_path / name, count)
    )
    assert (done.pictures, done.unusable, dict(done.editors)) == (count, 0, {"drawn": count})
    own = imported(world, done.key)
    assert why_not_ready(METHOD, own) == ""
    require_methods(own, [METHOD])
    stage, made = ranked(own, ref)
    assert made > 0
    rows = rows_of(stage)
    for query in queries[:count]:
        row = rows[f"{query.category}/{query.query_id}" if query.category else query.query_id]
        assert row["names"][0] == target_of(query)
        assert row["scores"][0] == pytest.approx(1.0, abs=1e-5)
    failed = [row for row in rows.values() if row["status"] != "ok"]
    assert len(failed) == 1
    assert failed[0]["status"] == "missing_input"

    (feature,) = stage.query_features.values()
    reasons = feature.table().read(["status", "reason"]).filter(pl.col("status") != "ok")
    assert reasons["reason"].to_list() == [
        "no edited picture: not_imported (the import holds no picture of this reference and text)"
    ]
    assert ranked(own, ref)[1] == 0  # nothing is made twice
    assert made_by(stage)["editor"] == f"imported {done.key}"
    shown = named(made_by(stage), names_of(stage))["editor"]
    assert shown == f"imported pictures by drawn {done.key[:8]}"
    assert label_of(ranking_protocol(stage)) == "references edited elsewhere by drawn"


def test_imports_are_by_content_and_one_that_was_cut_off_is_refused(
    world: Path, tmp_path: Path
) -> None:
    ref = reference(world, "circo")
    manifest = targets_as_pictures(world, ref, tmp_path / "edits", 3)
    root = tmp_path / "other root"
    first = import_pictures(str(root), manifest)
    turned = tmp_path / "edits" / "turned.jsonl"
    turned.write_text("".join(reversed(manifest.read_text().splitlines(keepends=True))))
    assert import_pictures(str(root), turned).key == first.key
    parts = sorted((root / "edited_pictures").glob("*/part-*.parquet"))
    assert len(parts) == 1
    require_editor(imported(world, first.key).model_copy(update={"root": str(root)}))

    from tasks import imported_pictures

    imported_pictures.require_import.cache_clear()
    parts[0].unlink()
    with pytest.raises(ExchangeError, match="was cut off: import its manifest again"):
        imported_pictures.require_import(str(root), first.key)
    with pytest.raises(ExchangeError, match=f"there is no import 'abc'.*{first.key}"):
        imported_pictures.require_import(str(root), "abc")
    with pytest.raises(ValueError, match=r"editor.pictures: there is no import"):
        require_methods(imported(world, "abc"), [METHOD])


def test_without_an_editor_the_method_says_what_to_set(world: Path) -> None:
    own = profile(world)
    assert METHOD not in runnable_methods(own)
    reason = why_not_ready(METHOD, own)
    assert "editor.model=timbrooks/instruct-pix2pix" in reason
    assert "editor.pictures=KEY" in reason
    assert "editor.pictures=KEY" in why_not_ready(METHOD, imported(world, ""))


def test_what_is_asked_is_exported_and_what_was_made_comes_back(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ref = reference(world, "circo")
    place = ("--benchmark", "circo", "--split", "val", "--folder", str(world / "circo"))
    root = ("--root", str(world / "root"))
    asked = tmp_path / "asked"
    assert main(["export", "pictures", *place, *root, "--out", str(asked)]) == 0
    records = [json.loads(line) for line in (asked / "asked.jsonl").read_text().splitlines()]
    texts = {query.texts[0] for query in ref.load().queries}
    assert {record["text"] for record in records} == texts
    for record in records:
        data = Path(record["reference"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == record["reference_sha256"]

    manifest = targets_as_pictures(world, ref, tmp_path / "edits", 2)
    capsys.readouterr()
    assert main(["import", "pictures", str(manifest), *place, *root, "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (done["pictures"], done["asked"], done["joined"]) == (2, len(records), 2)

    back = tmp_path / "back"
    settings = ("--set", "editor.engine=imported", "--set", f"editor.pictures={done['key']}")
    assert main(["export", "pictures", *place, *root, *settings, "--out", str(back)]) == 0
    assert len((back / "asked.jsonl").read_text().splitlines()) == len(records) - 2
    again = import_pictures(str(tmp_path / "fresh"), back / "manifest.jsonl")
    assert again.key == done["key"]


def test_a_picture_edited_here_is_the_one_that_is_searched_with(
    world: Path, tmp_path: Path
) -> None:
    pytest.importorskip("diffusers", reason="`make editor` was not run")
    from models.protocols import EditRequest
    from tests.fakes.tiny_editor import write_editor

    folder = write_editor(tmp_path / "editor")
    own = profile(world, model=str(folder), steps=2, resolution=64, device="cpu", dtype="fp32")
    ref = reference(world, "circo")
    stage, _ = ranked(own, ref)
    assert {row["status"] for row in rows_of(stage).values()} == {"ok"}
    assert "steps 2" in made_by(stage)["editor"]

    (feature,) = stage.query_features.values()
    table = feature.inputs["edited"].table()
    rows = list(table.read().iter_rows(named=True))
    assert len({row["picture_id"] for row in rows}) == len(rows)
    found = load_query_set(own.root, ref)
    vectors = dict(feature.table().read(["vector"]).iter_rows())
    (row, item) = next(
        (row, item)
        for row in rows
        for item in found.items.values()
        if (row["reference"], row["text"]) == (item.image_id, item.texts[0])
    )
    shown = Image.open(io.BytesIO(row["data"]))
    expected = load_encoder(own.query_encoder.changed(preprocess="clip")).encode_images([shown])
    np.testing.assert_allclose(np.array(vectors[item.key]), expected[0], atol=1e-5)
    # The stored picture is the engine's, with the seed that its record says.
    paths = {digest: name for name, digest in found.image_ids.items()}
    place = found.benchmark.image_paths[paths[row["reference"]]]
    request = EditRequest(
        "k", Image.open(place).convert("RGB"), row["text"], json.loads(row["making"])["seed"]
    )
    (reply,) = own.editor.load().edit([request])
    assert np.abs(np.asarray(reply.picture).astype(int) - np.asarray(shown).astype(int)).max() <= 1
    # A person's query of the same image and text is edited alike, and nothing is stored for it.
    query = OneQuery(image_id=row["reference"], text=row["text"])
    asked = query_stages(own, query, ref.collection_name, METHOD, "circo")["edited_picture"]
    assert isinstance(asked, EditedQueryStage)
    np.testing.assert_allclose(asked.of_picture(request.image), expected, atol=2e-2)


def test_the_oracle_draws_what_its_texts_ask(world: Path, tmp_path: Path) -> None:
    """The pictures of a perfect editor find targets that no picture alone shows."""
    done = write_drawn_edits(world, tmp_path / "edits")
    assert done.unread == 0
    imported_edits = import_pictures(str(world / "root"), tmp_path / "edits" / "manifest.jsonl")
    ref = reference(world, "circo")
    stage, _ = ranked(imported(world, imported_edits.key), ref)
    rows = rows_of(stage)
    for query in ref.load().queries:
        assert rows[query.query_id]["names"][0] in query.targets
    assert "an oracle" in label_of(ranking_protocol(stage))
    stored = {row["picture_id"] for row in edited_rows(stage)}
    for strip in example_queries(stage):
        assert strip.edited is not None
        picture = decode_image((tmp_path / "edits" / f"{shown_in(strip, stage)}.png").read_bytes())
        picture.thumbnail((112, 112))
        small = np.asarray(Image.open(io.BytesIO(strip.edited.jpeg)).convert("RGB")).astype(int)
        assert np.abs(small - np.asarray(picture).astype(int)).mean() < 4
        assert shown_in(strip, stage) in stored


def edited_rows(stage: RankingStage) -> list[dict[str, Any]]:
    (feature,) = stage.query_features.values()
    return list(feature.inputs["edited"].table().read().iter_rows(named=True))


def shown_in(strip: Strip, stage: RankingStage) -> str:
    """The picture of a strip's query: the one of its text, where texts differ."""
    return next(row["picture_id"] for row in edited_rows(stage) if row["text"] == strip.text)


@pytest.mark.slow
def test_pictures_of_killed_processes_are_whole(world: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments: no picture is lost, doubled or another one."""
    pytest.importorskip("diffusers", reason="`make editor` was not run")
    from tests.fakes.tiny_editor import write_editor

    folder = write_editor(tmp_path / "editor")
    own = profile(world, model=str(folder), steps=2, resolution=64, device="cpu", dtype="fp32")
    ref = reference(world, "circo")
    root = tmp_path / "root"
    ingest(Location(str(root)), image_folder(ref.load()), ref.collection_name)
    own = own.model_copy(update={"root": str(root)})
    stage = picture_stage(own, ref).model_copy(update={"shard_size": 1})

    def done() -> bool:
        return not stage.table().plan(stage.planned(), stage.shard_size).shards

    assert len(stage.planned()) > 3
    with killable_processes() as parent:
        taken = killed(parent, "EditedPictureStage", stage.model_dump_json(), done, 3)
    assert taken >= len(stage.planned())
    parts = list(stage.table().iter_parts(["data", "status"]))
    rows = {key: data for part in parts for key, data, _ in part.iter_rows()}
    assert sum(map(len, parts)) == len(rows) == len(stage.planned())
    whole = stage.rows(stage.planned(), lambda count: None).to_pylist()  # undisturbed
    for row in whole:
        made, wanted = (
            np.asarray(decode_image(data)).astype(int)
            for data in (rows[row["edit_key"]], row["data"])
        )
        assert np.abs(made - wanted).max() <= 1


def test_a_folder_without_drawn_benchmarks_is_refused_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        draw_edits([str(tmp_path), "--out", str(tmp_path / "edits")])
    assert ended.value.code == 2
    assert "holds no drawn benchmark; give the folder that holds cirr" in capsys.readouterr().err
