"""LDRE's published layout scored by CIReVL, LDRE and CVSI: no captioner and no LLM is asked."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows.profiles import resolve_profile
from storage.collections.collection import ingest
from storage.exchange.sources import ExchangeError
from storage.locations.location import Location
from tasks.exported_texts import export_texts
from tasks.imported_texts import TextImport, import_texts, imported_spec
from tasks.planner import EvaluationPlan, plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder, load_query_set
from tasks.scoring.making import made_by, named, names_of
from tasks.settings import Profile
from tasks.stages.caption_features import CaptionFeatureStage
from tasks.stages.query_features import QueryFeatureStage, Tables
from tasks.stages.stage import Stage
from tests.fakes.filled_tables import fill, fill_all
from tests.fakes.ldre_file import N, ldre_records, write_rows

QUERIES = 20
METHODS = ("cirevl", "ldre", "cvsi")


@dataclass(frozen=True)
class Place:
    root: str
    ref: BenchmarkRef
    file: Path
    more: Path

    @property
    def gallery(self) -> int:
        return len(self.ref.load().galleries[""])

    @property
    def records(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.file.read_text())
        return found

    def profile(self, key: str, **more: Any) -> Profile:
        engines = {
            f"{engine}.{name}": value
            for engine in ("captioner", "generator")
            for name, value in (("engine", "imported"), ("texts", key))
        }
        own = {"root": self.root, "single_caption": "greedy", "cvsi.captions_per_image": N}
        return resolve_profile("tiny", {**own, **engines, **more})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """CIRCO's layout with 20 queries, LDRE's file, and what CVSI needs beside it."""
    from embedded_world.benchmarks import WorldSize, write_circo

    folder = tmp_path_factory.mktemp("imported")
    size = WorldSize(circo_queries=QUERIES, distractors=0, siblings=0)
    write_circo(folder / "circo", size, seed=3)
    ref = BenchmarkRef(name="circo", root=str(folder / "circo"), split="val")
    root = str(folder / "tables")
    ingest(Location(root), image_folder(ref.load()), ref.collection_name)
    file = folder / "ldre" / "val.json"
    file.parent.mkdir()
    file.write_text(json.dumps(ldre_records(folder / "circo" / "annotations" / "val.json")))
    more = write_rows(
        folder / "more.jsonl",
        [
            *({"query_id": str(row), "objects": f"star {row}"} for row in range(QUERIES)),
            *(
                {"image": name, "captions": [f"picture {name} at {i}" for i in range(N)]}
                for name in ref.load().galleries[""]
            ),
        ],
    )
    return Place(root, ref, file, more)


@pytest.fixture(scope="module")
def done(place: Place) -> TextImport:
    return import_texts(place.root, place.ref, [place.file, place.more], licence="research only")


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Fail, and count, wherever a captioner or language model is loaded."""
    asked: list[str] = []

    def load(settings: Any) -> Any:
        asked.append(settings.title)
        raise AssertionError(f"{settings.title} was loaded")

    for module in ("tasks.stages.captions.load_captioner", "tasks.stages.rewrites.load_generator"):
        monkeypatch.setattr(module, load)
    return asked


@pytest.mark.slow
def test_three_methods_are_scored_from_ldres_file_without_a_model(
    place: Place, done: TextImport, no_models: list[str]
) -> None:
    profile = place.profile(done.key)
    plan = plan_evaluation(profile, place.ref, METHODS)
    fill_all(plan.rankings)
    assert no_models == []
    for stage in plan.rankings:
        assert stage.table().rows_by_status() == {"ok": QUERIES}, stage.method
    for stage in (each for each in plan.upstream if each.table_name in ("captions", "rewrites")):
        counted = stage.table().completeness(stage.planned())
        assert (counted.ok, counted.gaps) == (len(stage.planned()), 0), stage.title
        engine = stage.spec["captioner" if stage.table_name == "captions" else "generator"]
        assert engine == {"engine": "imported", "model": done.key}
    require_vectors(plan, place)
    cvsi = plan.rankings[METHODS.index("cvsi")]
    shown = named(made_by(cvsi), names_of(cvsi))
    files = done.source.partition("; licence")[0]
    assert (shown["captioner"], shown["generator"]) == (f"imported {files}", f"imported {files}")
    assert "edit_prompt" not in shown
    made, imported = place.more.with_name("made.jsonl"), place.more.with_name("imported.jsonl")
    export_texts(profile, place.ref, "own", made)  # from the stages' tables
    export_texts(profile, place.ref, "own", imported, done.key)
    assert rows_of(made) == [stripped(row) for row in rows_of(imported)]


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, path.read_text().splitlines())
    return sorted(rows, key=lambda row: (row.get("query_id", ""), row.get("image", "")))


def stripped(row: dict[str, Any]) -> dict[str, Any]:
    """A row whose edits were read as a model's replies."""
    return {**row, **({"edits": [e.strip() for e in row["edits"]]} if "edits" in row else {})}


def require_vectors(plan: EvaluationPlan, place: Place) -> None:
    """Each query's features are those of its own record's texts, encoded here one by one."""
    from tasks.engines import load_encoder

    stages = {s.feature: s for s in plan.upstream if isinstance(s, QueryFeatureStage)}
    items = load_query_set(place.root, place.ref).items
    encoder = load_encoder(stages["each_caption"].encoder)

    def encoded(texts: Sequence[str]) -> Any:
        vectors = encoder.encode_texts(texts)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    for record in place.records:
        item = items[("", str(record["id"]))]
        edits = [text.strip() for text in record["multi_gpt-3.5_opt"]]
        wanted = {
            "each_caption": encoded(record["multi_caption_opt"]),
            "each_edited_caption": encoded(edits),
            "edited_captions": encoded(edits).mean(axis=0),
            "edited_caption": encoded([record["gpt-3.5-turbo"]])[0],
        }
        for name, expected in wanted.items():
            got = stages[name].shaped(stages[name].table().vectors([item.key]))[0]
            np.testing.assert_allclose(got, expected, atol=1e-5, err_msg=name)


def test_what_is_imported_is_counted_and_named(place: Place, done: TextImport) -> None:
    assert (done.queries, done.images, done.new_rows) == (
        QUERIES,
        place.gallery,
        QUERIES + place.gallery,
    )
    assert done.texts == {
        "captions": QUERIES,
        "edits": QUERIES,
        "joined_edit": 0,
        "single_caption": QUERIES,
        "single_edit": QUERIES,
        "objects": QUERIES,
    }
    assert done.source.startswith("val.json, sha256 ")
    assert done.source.endswith("; licence: research only")
    again = import_texts(place.root, place.ref, [place.more, place.file])
    assert (again.key, again.new_rows) == (done.key, 0)
    alone = import_texts(place.root, place.ref, [place.file])
    assert alone.key != done.key
    assert alone.texts["objects"] == 0


def test_images_may_have_fewer_captions_than_queries(place: Place, tmp_path: Path) -> None:
    names = place.ref.load().galleries[""]
    rows = ({"image": name, "captions": ["one", "two", "three"]} for name in names)
    own = import_texts(place.root, place.ref, [place.file, write_rows(tmp_path / "g.jsonl", rows)])
    for target, first in ((1, 1), (2, 2), (3, 0)):
        profile = place.profile(own.key, **{"cvsi.target_captions": target})
        plan = plan_evaluation(profile, place.ref, ["cvsi-no-fine-grained"])
        (stage,) = (each for each in plan.upstream if isinstance(each, CaptionFeatureStage))
        assert (stage.captions.sampling.n, stage.first) == (3, first)
        table = stage.captions.rows(stage.captions.planned(), lambda count: None)
        assert set(table["status"].to_pylist()) == {"ok"}
        assert table["captions"].to_pylist() == [["one", "two", "three"]] * len(table)
    profile = place.profile(own.key, **{"cvsi.target_captions": 4})
    plan = plan_evaluation(profile, place.ref, ["cvsi-no-fine-grained"])
    (stage,) = (each for each in plan.upstream if isinstance(each, CaptionFeatureStage))
    (reason,) = set(
        stage.captions.rows(stage.captions.planned(), lambda n: None)["reason"].to_pylist()
    )
    assert reason == (
        "the import holds 3 captions of this image, 4 are asked for: set cvsi.target_captions=3"
    )


def test_an_import_that_was_cut_off_is_refused_until_it_is_repeated(
    place: Place, done: TextImport, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(Path(place.root).with_name("others"))
    with monkeypatch.context() as patch:
        patch.setattr("tasks.imported_texts._publish_images", lambda *given: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            import_texts(root, place.ref, [place.file, place.more])
    with pytest.raises(ExchangeError, match=f"{done.key} was cut off"):
        imported_spec(root, done.key)
    assert import_texts(root, place.ref, [place.file, place.more]).new_rows == place.gallery
    assert imported_spec(root, done.key)["imported"] == sorted(
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (place.file, place.more)
    )
    with pytest.raises(ExchangeError, match=f"no import 'other'.*there are {done.key}"):
        imported_spec(root, "other")


def test_exported_again_it_is_equal(place: Place, done: TextImport, tmp_path: Path) -> None:
    profile = place.profile(done.key)
    written = export_texts(profile, place.ref, "ldre", tmp_path / "again.json", done.key)
    assert written == {tmp_path / "again.json": QUERIES}
    assert json.loads((tmp_path / "again.json").read_text()) == place.records
    with pytest.raises(ExchangeError, match=r"again\.json exists"):
        export_texts(profile, place.ref, "ldre", tmp_path / "again.json", done.key)
    for name in ("own.jsonl", "own.parquet"):
        export_texts(profile, place.ref, "own", tmp_path / name, done.key)
        copy = import_texts(place.root, place.ref, [tmp_path / name])
        assert (copy.texts, copy.images) == (done.texts, done.images)
        assert copy.key != done.key


def test_what_the_import_lacks_is_a_failed_row_and_nothing_is_generated(
    place: Place, no_models: list[str]
) -> None:
    alone = import_texts(place.root, place.ref, [place.file])
    profile = place.profile(alone.key)
    plan = plan_evaluation(profile, place.ref, ["cvsi"])
    objects = next(
        s.objects for s in plan.upstream if isinstance(s, QueryFeatureStage) and s.objects
    )
    gallery = next(s for s in plan.upstream if s.title == "captions of circo-val gallery")
    stages: list[Stage] = [objects.captions, gallery, objects]
    for stage in stages:
        fill(stage)
    assert gallery.table().rows_by_status() == {"not_imported": place.gallery}
    assert objects.table().rows_by_status() == {"not_imported": QUERIES}
    assert set(objects.table().read(["reason"])["reason"]) == {
        "the import holds no such text (objects 0)"
    }
    assert no_models == []


def broken(tmp_path: Path, records: list[dict[str, Any]]) -> Path:
    path = tmp_path / "val.json"
    path.write_text(json.dumps(records))
    return path


def test_files_that_do_not_fit_are_refused_with_the_record(place: Place, tmp_path: Path) -> None:
    records = place.records
    cases = {
        "wrong id": ([*records[:5], {**records[5], "id": 990}, *records[6:]],
                     r"record 5: circo val has no query '990'"),
        "missing": (records[:7] + records[8:], r"1 of 20 queries of circo val is absent \('7'\)"),
        "doubled": ([*records, records[3]], r"record 20: query '3' occurs twice"),
        "other reference": ([{**records[0], "reference_img_id": 1}, *records[1:]],
                            r"record 0: the reference is 1; query '0' has"),
        "other text": ([*records[:2], {**records[2], "relative_caption": "is blue"}, *records[3:]],
                       r"record 2: the modification text is 'is blue'"),
        "swapped": ([{**records[0], "id": 1}, {**records[1], "id": 0}, *records[2:]], "record 0"),
        "cirr": ([{"pairid": 1, "reference": "a", "caption": "b", "multi_caption_opt": [],
                   "multi_gpt-3.5_opt": []}], r"record 0: the field 'id' of circo is absent"),
        "fewer captions": ([*records[:4], {**records[4], "multi_caption_opt": ["a"] * 14,
                                           "multi_gpt-3.5_opt": ["b"] * 14}, *records[5:]],
                           r"query '4': 14 captions, others have 15"),
        "fewer edits": ([*records[:4], {**records[4], "multi_gpt-3.5_opt": ["b"] * 14},
                         *records[5:]], r"query '4': 14 edits of 15 captions"),
        "no list": ([{**records[0], "multi_caption_opt": "a"}, *records[1:]],
                    r"record 0, multi_caption_opt is 'a', expected a list of texts"),
    }  # fmt: skip
    for changed, message in cases.values():
        path = broken(tmp_path, changed)
        with pytest.raises(ExchangeError, match=message):
            import_texts(place.root, place.ref, [path])


def test_queries_about_one_image_keep_their_own_captions_and_joined_edits(
    place: Place, tmp_path: Path
) -> None:
    """A file may caption an image anew for each query, and edit one caption in different ways."""
    folder = tmp_path / "circo"
    shutil.copytree(place.ref.root, folder)
    annotations = folder / "annotations" / "val.json"
    records = json.loads(annotations.read_text())
    keep = ("id", "reference_img_id", "relative_caption", "shared_concept")
    records = [{name: record[name] for name in keep} for record in records]
    records[1]["reference_img_id"] = records[0]["reference_img_id"]
    (folder / "annotations" / "test.json").write_text(json.dumps(records))
    ref = BenchmarkRef(name="circo", root=str(folder), split="test")
    root = str(tmp_path / "tables")
    ingest(Location(root), image_folder(ref.load()), ref.collection_name)
    rows = [
        {"query_id": str(i), "captions": [f"seen {i}", "alike"], "joined_edit": f"edit {i}"}
        for i in range(QUERIES)
    ]
    done = import_texts(root, ref, [write_rows(tmp_path / "own.jsonl", rows)])
    changed = {"root": root, "cvsi.captions_per_image": 2, "cvsi.edit_mode": "joined"}
    plan = plan_evaluation(place.profile(done.key, **changed), ref, ["cvsi"])
    stage = next(s for s in plan.upstream if isinstance(s, QueryFeatureStage) and s.edits)
    assert stage.edits is not None
    for each in (stage.edits.captions, stage.edits):
        fill(each)
    items = load_query_set(root, ref).items
    asked = [items[("", str(i))] for i in range(2)]
    assert asked[0].image_id == asked[1].image_id
    texts = stage.texts(asked, Tables())
    assert [own.captions for own in texts] == [("seen 0", "alike"), ("seen 1", "alike")]
    assert [own.edits for own in texts] == [("edit 0",), ("edit 1",)]
