"""Published sets of triplets in their layouts: joined by hand, refused by record, written again."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.collections.collection import Collection, ingest
from storage.exchange.records import write_records
from storage.exchange.sources import ExchangeError, open_sources
from storage.exchange.triplet_forms import to_record
from storage.locations.location import Location
from tasks.training.imported_triplets import Imported, exported, import_triplets
from tasks.training.triplet_sets import TripletSet
from tests.fakes.pictures import jpeg

PATHS = [
    "0000012.png",
    "0000345.png",
    "COCO_val2014_000000000078.jpg",
    "train/COCO_train2014_000000090001.jpg",
    "clips/1024/99.jpg",
    "clips/2048/99.jpg",
]


@pytest.fixture
def root(tmp_path: Path) -> str:
    """Six images under names as published sets have them."""
    for seed, name in enumerate(PATHS):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(seed))
    place = str(tmp_path / "root")
    ingest(Location(place), tmp_path / "images", "photos")
    return place


def load(root: str, path: Path, form: str, **options: Any) -> Imported:
    options = {"fields": {}, **options}
    return import_triplets(root, open_sources([path]), form, "photos", **options)


def named(root: str, found: Imported) -> list[tuple[str, str, str]]:
    """Path of the reference, text, path of the target, of each usable triplet."""
    rows = Collection.open(Location(root), "photos").rows()
    paths = dict(rows.select("image_id", "path").iter_rows())
    return [(paths[t.reference], t.text, paths[t.target]) for t in found.triplets.triplets()]


def write_csv(path: Path, records: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content))


LAION = {
    "12": {"tgt_image_id": 345, "relative_cap": " make it  red ", "tgt_cap": "a red car"},
    "0000345": {"tgt_image_id": "12", "relative_cap": "no car", "tgt_cap": "a street"},
}
TEMPLATE = [{"ref_image_id": 12, "relative_cap": "swap them", "tgt_image_id": 345}]
LASCO = [
    {
        "qid": 5,
        "query-image": [78, "val2014/COCO_val2014_000000000078.jpg"],
        "query-text": "two dogs",
        "target-image": [90001, "val2014/COCO_val2014_000000090001.jpg"],
    }
]
COVR = [
    {"pth1": "2048/99", "pth2": "1024/99", "txt2": "a cat", "edit": "as a cat", "scores": "[.9]"}
]
MEGA = [
    {"q_img": "./clips/1024/99.jpg", "q_text": ["one", "two"], "t_img": "0000012.png", "hns": []}
]
MTCIR = [{"image": "0000012.png", "target_image": "0000345.png", "modifications": ["a", "b"]}]

FORMS: Mapping[str, tuple[str, Callable[[Path, Any], None], Any, list[tuple[str, str, str]]]] = {
    "transagg": (
        "laion_llm_info.json",
        write_json,
        LAION,
        [("0000012.png", "make it red", "0000345.png"), ("0000345.png", "no car", "0000012.png")],
    ),
    "transagg list": (
        "laion_template_info.json",
        write_json,
        TEMPLATE,
        [("0000012.png", "swap them", "0000345.png")],
    ),
    "lasco": ("lasco_val.json", write_json, LASCO, [(PATHS[2], "two dogs", PATHS[3])]),
    "covr": ("covr.csv", write_csv, COVR, [(PATHS[5], "as a cat", PATHS[4])]),
    "megapairs": (
        "mega.jsonl",
        write_jsonl,
        MEGA,
        [(PATHS[4], "one", PATHS[0]), (PATHS[4], "two", PATHS[0])],
    ),
    "mtcir": (
        "mtcir.json",
        write_json,
        MTCIR,
        [(PATHS[0], "a", PATHS[1]), (PATHS[0], "b", PATHS[1])],
    ),
}


@pytest.mark.parametrize("name", list(FORMS))
def test_each_form_is_joined_with_the_images(name: str, root: str, tmp_path: Path) -> None:
    file, write, content, wanted = FORMS[name]
    write(tmp_path / file, content)
    found = load(root, tmp_path / file, name.split()[0])
    assert named(root, found) == wanted
    assert found.statuses == {"ok": len(wanted)}
    spec = found.triplets.table().spec
    assert spec["generator"]["model"].startswith(f"imported from {file}, sha256 ")
    parts = found.triplets.table().parts()
    assert load(root, tmp_path / file, name.split()[0]).triplets == found.triplets
    assert found.triplets.table().parts() == parts


@pytest.mark.parametrize("name", list(FORMS))
def test_what_was_imported_is_written_and_read_again(name: str, root: str, tmp_path: Path) -> None:
    file, write, content, wanted = FORMS[name]
    form = name.split()[0]
    write(tmp_path / file, content)
    found = load(root, tmp_path / file, form)
    for own, ending in ((form, Path(file).suffix), ("own", ".parquet"), ("own", ".jsonl")):
        out = tmp_path / f"again-{own}{ending}"
        write_records(out, (to_record(own, each) for each in exported(found.triplets)))
        assert named(root, load(root, out, own)) == wanted
    with pytest.raises(ExchangeError, match="exists; name another file"):
        write_records(tmp_path / file, [{"a": 1}])


def test_one_text_of_several_is_drawn_by_the_images(root: str, tmp_path: Path) -> None:
    texts = [f"text {n}" for n in range(50)]
    write_jsonl(tmp_path / "m.jsonl", [{**MEGA[0], "q_text": texts}])
    (drawn,) = named(root, load(root, tmp_path / "m.jsonl", "megapairs", texts="one"))
    assert drawn[1] in texts
    write_jsonl(tmp_path / "n.jsonl", [{**MEGA[0], "q_text": texts, "hns": ["x"]}])
    assert named(root, load(root, tmp_path / "n.jsonl", "megapairs", texts="one")) == [drawn]


def test_files_of_other_shapes_are_read_by_named_fields(root: str, tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"a": ["0000012.png"], "b": ["0000345.png"], "say": ["x"]}), tmp_path / "s.parquet"
    )
    with pytest.raises(ExchangeError, match="no file of synthtriplets was seen here: name the"):
        load(root, tmp_path / "s.parquet", "synthtriplets")
    fields = {"reference": "a", "target": "b", "text": "say"}
    found = load(root, tmp_path / "s.parquet", "synthtriplets", fields=fields)
    assert named(root, found) == [("0000012.png", "x", "0000345.png")]
    with pytest.raises(ExchangeError, match="no field q_img for the reference; it has a, b, say"):
        load(root, tmp_path / "s.parquet", "megapairs")


def test_absent_images_are_refused_by_record_or_counted(root: str, tmp_path: Path) -> None:
    records = [
        {"reference": "0000012.png", "target": "0000345.png", "text": "x"},
        {"reference": "0000012.png", "target": "gone.png", "text": "y"},
        {"reference": "0000012.png", "target": "0000012.png", "text": "z"},
        {"reference": "0000345.png", "target": "0000012.png", "text": " "},
        {"reference": "0000012.png", "target": "0000345.png", "text": "x"},
    ]
    write_jsonl(tmp_path / "own.jsonl", records)
    with pytest.raises(ExchangeError, match=r"line 2: no image gone\.png in photos\. Ingest it"):
        load(root, tmp_path / "own.jsonl", "own")
    assert not Location(root).list("triplets")  # a refused file leaves nothing
    found = load(root, tmp_path / "own.jsonl", "own", allow_missing=True)
    assert (found.records, found.repeated) == (5, 1)
    assert found.statuses == {"ok": 1, "missing_input": 1, "rejected": 2}
    assert named(root, found) == [("0000012.png", "x", "0000345.png")]
    rows = found.triplets.table().read(["position", "reason"]).sort("position")
    assert rows["reason"].to_list() == [
        "",
        "no image gone.png",
        "reference and target are one image",
        "no text",
    ]
    write_jsonl(tmp_path / "none.jsonl", records[1:2])
    with pytest.raises(ExchangeError, match="none of the 1 record can be used"):
        load(root, tmp_path / "none.jsonl", "own", allow_missing=True)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"reference": True, "target": "b", "text": "x"}, "the reference is not the name of an"),
        ({"reference": "a", "target": [], "text": "x"}, "the target is not the name of an image"),
        ({"reference": "a", "target": "b", "text": [3]}, "the text is neither a text nor texts"),
        ({"reference": "a", "text": "x"}, "no field target for the target; it has reference, text"),
        ([1, 2], r"not an object with fields, but \[1, 2\]"),
    ],
)
def test_a_wrong_record_is_named(record: Any, said: str, root: str, tmp_path: Path) -> None:
    good = {"reference": "0000012.png", "target": "0000345.png", "text": "x"}
    write_jsonl(tmp_path / "own.jsonl", [good, record])
    with pytest.raises(ExchangeError, match=f"own.jsonl, line 2: {said}"):
        load(root, tmp_path / "own.jsonl", "own")


def test_names_that_mean_two_images_are_refused(root: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "m.jsonl", [{**MEGA[0], "q_img": "99.jpg"}])
    with pytest.raises(ExchangeError, match=r"99\.jpg may be clips/1024/99\.jpg or clips/2048"):
        load(root, tmp_path / "m.jsonl", "megapairs")


def test_pickles_are_refused_with_the_safe_way(root: str, tmp_path: Path) -> None:
    (tmp_path / "mega.pkl").write_bytes(b"\x80\x04]\x94.")
    with pytest.raises(ExchangeError, match=r"-m storage\.exchange\.plain_pickle"):
        load(root, tmp_path / "mega.pkl", "megapairs")


def test_a_network_is_trained_on_an_imported_set(triplets: TripletSet, tmp_path: Path) -> None:
    """What was generated is exported, imported again, and trained on; the card names the file."""
    from tasks.training.instructcir import train_reformulation_network
    from tasks.training.run_settings import RunSettings
    from tests.fakes.triplet_tables import COLLECTION, small_job

    root, file = triplets.root, tmp_path / "set.jsonl"
    write_records(file, (to_record("megapairs", each) for each in exported(triplets)))
    found = import_triplets(root, open_sources([file]), "megapairs", COLLECTION, fields={})
    same = [(t.reference, t.text, t.target) for t in triplets.triplets()]
    assert [(t.reference, t.text, t.target) for t in found.triplets.triplets()] == same
    job = small_job(root, found.triplets, training={"max_steps": 1})
    done = train_reformulation_network.fn(job, RunSettings(accelerator="cpu", loggers=()), {})
    card = Path(done["checkpoint"], "README.md").read_text()
    assert "imported from set.jsonl, sha256" in card
    assert "generated" not in card.split("## Validation")[0]
