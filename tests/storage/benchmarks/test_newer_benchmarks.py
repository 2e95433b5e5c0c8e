"""i-CIR, LaSCo, GeneCIS and PinPoint: published layouts, damaged files, predictions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from storage.benchmarks import icir, pinpoint
from storage.benchmarks.errors import AnnotationError, MissingImages, PredictionError
from storage.benchmarks.genecis import Crop, read_crops
from storage.benchmarks.genecis_crops import cut_out, main
from storage.benchmarks.images import image_coverage
from storage.benchmarks.indexing import index_category
from storage.benchmarks.predictions import check_predictions
from storage.benchmarks.registry import benchmark_facts, load_annotations, load_benchmark
from tests.fakes.benchmark_layouts import (
    ICIR_DATABASE,
    ICIR_QUERIES,
    genecis_record,
    lasco_corpus,
    lasco_triplets,
    pinpoint_content,
    touch,
    write_icir,
    write_json,
    write_lasco,
)

# --------------------------------------------------------------------------- i-CIR


@pytest.mark.parametrize("header", [False, True])
def test_icir_asks_each_instances_database(tmp_path: Path, header: bool) -> None:
    top = [",".join(icir.HEADER)] if header else []
    root = write_icir(tmp_path / "icir", [*top, *ICIR_QUERIES], [*top, *ICIR_DATABASE])
    loaded = load_annotations("icir", tmp_path, "test")
    assert loaded.galleries == {
        "a": tuple(f"database/a/{i}.jpg" for i in (1, 2, 3, 4)),
        "b": ("database/b/1.jpg", "database/b/2.jpg"),
    }
    # Queries stand by instance, with their line as id.
    assert [(q.query_id, q.category, q.text, q.targets) for q in loaded.queries] == [
        ("0", "a", "at night", ("database/a/1.jpg", "database/a/4.jpg")),
        ("2", "a", "as a toy", ("database/a/2.jpg",)),
        ("1", "b", "as a toy", ("database/b/1.jpg",)),
    ]
    assert loaded.family == "circo"
    assert loaded.protocol["gallery"] == "the database of the query's instance"
    touch([root / line.partition(",")[0] for line in (*ICIR_QUERIES, *ICIR_DATABASE[:6])])
    assert image_coverage(load_benchmark("icir", tmp_path, "test")).found == 9


def test_icir_paths_may_begin_with_the_folder_of_the_data_set(tmp_path: Path) -> None:
    queries = [f"old_name/{line}" for line in ICIR_QUERIES]
    database = [f"old_name/{line}" for line in ICIR_DATABASE]
    root = write_icir(tmp_path / "icir", queries, database)
    touch([root / line.partition(",")[0] for line in (*ICIR_QUERIES, *ICIR_DATABASE[:6])])
    assert image_coverage(load_benchmark("icir", root, "test")).found == 9


def test_an_image_named_twice_counts_once_and_is_said(tmp_path: Path) -> None:
    database = [*ICIR_DATABASE, "database/a/1.jpg,as a toy,a"]
    loaded = load_annotations("icir", write_icir(tmp_path, database=database), "test")
    assert len(loaded.galleries["a"]) == 4
    assert loaded.queries[1].targets == ("database/a/2.jpg", "database/a/1.jpg")
    assert loaded.protocol["repeated_lines"] == "1: such an image counts once"


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("query", "query/a/1.jpg,at night", r"query_files\.csv, line 2: 2 fields, 3 are expected"),
        ("query", "q.jpg,one, two,a", r"line 2: 4 fields"),
        ("query", "../q.jpg,at night,a", r"line 2: image_path '\.\./q\.jpg' must lie below"),
        ("query", "q.jpg,at night,z", r"line 2: database_files\.csv has no image of .* 'z'"),
        ("query", "q.jpg,upside down,a", r"line 2: no image of the instance 'a' .*'upside down'"),
        ("query", "q.jpg,,a", r"line 2: text_query is empty"),
        ("database", "d.jpg,at night,", r"database_files\.csv, line 2: instance_id is empty"),
        ("database", '"d.jpg,at night,a', r"database_files\.csv: not a CSV file"),
    ],
)
def test_damaged_icir_is_refused_with_its_place(
    tmp_path: Path, file: str, line: str, said: str
) -> None:
    lines = {"query": ICIR_QUERIES, "database": ICIR_DATABASE}
    lines[file] = (lines[file][0], line)
    root = write_icir(tmp_path, lines["query"], lines["database"])
    with pytest.raises(AnnotationError, match=said):
        load_annotations("icir", root, "test")


def test_icir_predictions_rank_whole_databases(tmp_path: Path) -> None:
    loaded = load_annotations("icir", write_icir(tmp_path), "test")
    form = benchmark_facts("icir").predictions
    a, b = (list(loaded.galleries[name]) for name in "ab")
    read = check_predictions(loaded, form, {"a": {"0": a, "1": a[::-1]}, "b": {"0": b}})
    assert read.lists["a"].tolist() == [[0, 1, 2, 3], [3, 2, 1, 0]]
    with pytest.raises(PredictionError, match="3 names, at least 4 are needed"):
        check_predictions(loaded, form, {"a": {"0": a, "1": a[:3]}, "b": {"0": b}})
    with pytest.raises(PredictionError, match="annotations hold 'a', 'b'"):
        check_predictions(loaded, form, {"a": {"0": a, "1": a}})


# --------------------------------------------------------------------------- LaSCo


def test_lasco_joins_by_id(tmp_path: Path) -> None:
    loaded = load_annotations("lasco", write_lasco(tmp_path), "val")
    assert loaded.galleries == {"": ("42", "73", "74")}
    assert [(q.query_id, q.reference, q.text, q.targets) for q in loaded.queries] == [
        ("0", "42", "text 0", ("73",)),
        ("1", "99", "text 1", ("42",)),
    ]
    assert index_category(loaded).references.tolist() == [0, -1]
    touch([tmp_path / f"val2014/COCO_val2014_{i:012d}.jpg" for i in (42, 73, 74, 99)])
    assert image_coverage(load_benchmark("lasco", tmp_path, "val")).found == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t, c: t[0].pop("qid"), r"lasco_val\.json, record 0: field 'qid' is absent"),
        (
            lambda t, c: t[1].update({"query-image": [99]}),
            r"record 1: field 'query-image' is \[99\]",
        ),
        (lambda t, c: t[1].update({"query-image": ["9", "a/b"]}), r"record 1: .* expected \[id, p"),
        (lambda t, c: t[1].update({"target-image": [5, "a/b"]}), r"record 1: the target 5 is not"),
        (lambda t, c: t[1].update({"query-text": None}), r"record 1: field 'query-text' is None"),
        (lambda t, c: t[0].update({"target-image": [42, "a/b"]}), r"record 0: .* its own target"),
        (lambda t, c: c[2].update({"id": 42}), r"corpus\.json, record 2: id 42 occurs twice"),
        (lambda t, c: c[2].update({"path": "a.jpg"}), r"corpus\.json, record 2: path 'a\.jpg'"),
        (lambda t, c: c[2].update({"path": "../a/b.jpg"}), r"corpus\.json, record 2: path"),
    ],
)
def test_damaged_lasco_is_refused_with_its_place(
    tmp_path: Path, change: Callable[[Any, Any], object], said: str
) -> None:
    triplets, corpus = lasco_triplets(), lasco_corpus()
    change(triplets, corpus)
    write_json(tmp_path / "lasco_val.json", triplets)
    write_json(tmp_path / "lasco_val_corpus.json", corpus)
    with pytest.raises(AnnotationError, match=said):
        load_annotations("lasco", tmp_path, "val")


# --------------------------------------------------------------------------- GeneCIS


def test_genecis_queries_choose_among_their_own_images(tmp_path: Path) -> None:
    task = "change_object"
    records = [
        genecis_record(task, 1, 2, 3, 4),
        genecis_record(task, 2, 5, 3, 6, 7),  # of another size: left out
        genecis_record(task, 3, 4, 8, 8),  # a wrong image named twice
    ]
    write_json(tmp_path / "genecis" / f"{task}.json", records)
    loaded = load_annotations("genecis", tmp_path, task)
    names = [f"{number:012d}" for number in range(10)]
    assert loaded.galleries == {"": tuple(names[i] for i in (2, 3, 4, 8))}
    assert [(q.query_id, q.reference, q.targets, q.subset) for q in loaded.queries] == [
        ("0", names[1], (names[2],), (names[2], names[3], names[4])),
        ("1", names[3], (names[4],), (names[4], names[8])),
    ]
    assert loaded.protocol["left_out"] == "1 queries with another number of images"
    assert loaded.protocol["repeated_images"] == 1
    assert index_category(loaded).subsets.tolist() == [[0, 1, 2], [2, 3, -1]]
    touch([tmp_path / "val2017" / f"{name}.jpg" for name in names])
    assert image_coverage(load_benchmark("genecis", tmp_path, task)).found == 5
    form = benchmark_facts("genecis").predictions
    ranked = [[names[i] for i in (3, 4, 2)], [names[8], names[4], names[8]]]
    with pytest.raises(PredictionError, match="occurs twice"):
        check_predictions(loaded, form, dict(zip("01", ranked, strict=True)))


def test_crops_are_cut_as_by_the_released_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = "focus_attribute"
    write_json(tmp_path / f"{task}.json", [genecis_record(task, 1, 2, 3)])
    crops = read_crops(tmp_path, task)
    assert sorted(crops) == ["1_1.5_2_11_8", "2_1.5_2_12_8", "3_1.5_2_13_8"]
    with pytest.raises(MissingImages, match=r"first '.*/crops/2_1\.5_2_12_8\.png'|0 of 3 images"):
        load_benchmark("genecis", tmp_path, task)

    pictures = tmp_path / "VG_100K"
    pictures.mkdir()
    arguments = [task, str(tmp_path), "--visual-genome", str(pictures)]
    assert main(arguments) == 2
    assert "3 of 3 pictures are in none of" in capsys.readouterr().err
    for number in (1, 2, 3):
        Image.new("RGB", (60, 40), (200, 100, number)).save(pictures / f"{number}.jpg")
    assert main(arguments) == 0
    assert main(arguments) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{task}: 3 pictures written",
        f"{task}: 0 pictures written",
    ]
    loaded = load_benchmark("genecis", tmp_path, task)
    assert image_coverage(loaded).found == 3


def test_a_crop_by_hand() -> None:
    """A box of 10 x 20 at (30, 4): 23 to 40 across, and down from the picture's edge 0 to 34."""
    picture = Image.new("RGB", (60, 50), "white")
    picture.putpixel((23, 0), (255, 0, 0))
    picture.putpixel((39, 33), (0, 0, 255))
    cut = cut_out(picture, Crop("1", (30, 4, 10, 20)))
    assert cut.size == (34, 34)
    # 17 columns stand in the middle of 34: black, then the part, then black.
    assert cut.getpixel((8, 0)) == (255, 0, 0)
    assert cut.getpixel((24, 33)) == (0, 0, 255)
    assert cut.getpixel((7, 0)) == cut.getpixel((25, 33)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.pop("condition"), "record 0: field 'condition' is absent"),
        (lambda r: r.update(condition=" "), "record 0: the condition is empty"),
        (lambda r: r.update(gallery=[]), "record 0: the gallery is empty"),
        (lambda r: r.update(gallery=None), "record 0: field 'gallery' is None"),
        (lambda r: r["gallery"][1].pop("image_id"), "gallery 1: field 'image_id' is None"),
        (
            lambda r: r["gallery"][1].update(image_id="../1"),
            r"gallery 1: field 'image_id' is '\.\./1",
        ),
        (lambda r: r["target"].update(instance_bbox=[1, 2, 3]), "target: field 'instance_bbox' is"),
        (lambda r: r["target"].update(instance_bbox=[1, 2, 3, 0]), "target: field 'instance_bbox'"),
        (lambda r: r["target"].update(instance_bbox=[1, 2, 3, True]), "target: field 'instance_bb"),
    ],
)
def test_damaged_genecis_is_refused_with_its_place(
    tmp_path: Path, change: Callable[[Any], object], said: str
) -> None:
    record = genecis_record("change_attribute", 1, 2, 3, 4)
    change(record)
    write_json(tmp_path / "change_attribute.json", [record])
    with pytest.raises(AnnotationError, match=said):
        load_annotations("genecis", tmp_path, "change_attribute")


# --------------------------------------------------------------------------- PinPoint


def test_pinpoint_in_our_own_form(tmp_path: Path) -> None:
    write_json(tmp_path / pinpoint.FILE, pinpoint_content())
    loaded = load_annotations("pinpoint", tmp_path, "test", paraphrase=1)
    first, second = loaded.queries
    assert (first.text, first.reference, first.references) == ("in red", "r.png", ())
    assert (first.aspects, first.negatives) == (("one_reference",), ("c.png",))
    assert (second.reference, second.references) == ("d.png", ("d.png", "r.png"))
    assert second.aspects == ("more_references",)
    assert loaded.protocol["references"] == "the first; 1 of 2 queries have several"
    assert index_category(loaded).negatives.tolist() == [[2], [-1]]
    with pytest.raises(AnnotationError, match="it has 2 texts; paraphrase=2 asks for text 3"):
        load_annotations("pinpoint", tmp_path, "test", paraphrase=2)


def test_pinpoints_own_files_are_not_guessed(tmp_path: Path) -> None:
    write_json(tmp_path / "queries.json", [])
    with pytest.raises(AnnotationError, match=r"PinPoint's own files are not read.*benchmarks\.md"):
        load_annotations("pinpoint", tmp_path, "test")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop("gallery"), "field 'gallery' is absent"),
        (lambda c: c["gallery"].append("a.png"), "gallery: 'a.png' occurs twice"),
        (lambda c: c["gallery"].append("x/e.png"), "'x/e.png' must be the name of a file"),
        (lambda c: c["queries"][1].update(id="q0"), "'q0' occurs twice"),
        (lambda c: c["queries"][1].update(references=[]), "query 1: references and positives must"),
        (lambda c: c["queries"][0].update(negatives=["z.png"]), "query 0: 'z.png' is not an image"),
        (lambda c: c["queries"][0].update(negatives=["a.png"]), "query 0: 'a.png' is both a right"),
        (lambda c: c["queries"][0].update(texts=["a", ""]), "query 0: each of its texts"),
    ],
)
def test_damaged_pinpoint_is_refused_with_its_place(
    tmp_path: Path, change: Callable[[Any], object], said: str
) -> None:
    content = json.loads(json.dumps(pinpoint_content()))
    change(content)
    write_json(tmp_path / pinpoint.FILE, content)
    with pytest.raises(AnnotationError, match=said):
        load_annotations("pinpoint", tmp_path, "test")
