"""Files of LDRE's, CIReVL's and CVSI's layouts, written out by hand, joined to their benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from storage.benchmarks.records import Benchmark
from storage.benchmarks.registry import load_annotations
from storage.exchange.ldre import write_ldre
from storage.exchange.own_texts import own_records, read_own, write_own
from storage.exchange.programs import write_mods
from storage.exchange.sources import ExchangeError, open_sources
from storage.exchange.text_forms import read_texts
from storage.exchange.texts import Texts
from tests.fakes.benchmark_layouts import cirr_records, write_cirr, write_json

DRESS = [
    {"candidate": "B1", "target": "B2", "captions": ["is red.", "has sleeves"]},
    {"candidate": "B2", "target": "B3", "captions": ["", "is longer"]},
]
SHIRT = [{"candidate": "C1", "target": "C2", "captions": ["is blue", "no print"]}]


@pytest.fixture
def cirr(tmp_path: Path) -> Benchmark:
    return load_annotations("cirr", write_cirr(tmp_path / "cirr"), "val")


@pytest.fixture
def fashioniq(tmp_path: Path) -> Benchmark:
    root = tmp_path / "fiq"
    for name, records, images in (
        ("dress", DRESS, ["B1", "B2", "B3"]),
        ("shirt", SHIRT, ["C1", "C2"]),
    ):
        write_json(root / "captions" / f"cap.{name}.val.json", records)
        write_json(root / "image_splits" / f"split.{name}.val.json", images)
    return load_annotations("fashioniq", root, "val", join="both")


def read(benchmark: Benchmark, *paths: Path, **chosen: str) -> Texts:
    return read_texts(open_sources(paths), benchmark, chosen)


def with_multi(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """LDRE's two fields; all captions are one text, and their edits differ."""
    return [
        {**record, "multi_caption_opt": ["a dog"] * 3,
         "multi_gpt-3.5_opt": [f"a cat {row} {i}" for i in range(3)]}
        for row, record in enumerate(records)
    ]  # fmt: skip


def test_ldres_cirr_file_is_the_annotation_file_with_two_fields(
    cirr: Benchmark, tmp_path: Path
) -> None:
    records = with_multi(cirr_records())
    texts = read(cirr, write_json(tmp_path / "cap.rc2.val.json", records))
    assert texts.queries["101"].captions == ("a dog",) * 3
    assert texts.queries["101"].edits == ("a cat 1 0", "a cat 1 1", "a cat 1 2")
    assert texts.queries["101"].single_caption == ""
    assert write_ldre(texts, None, None, {}) == {"": records}


def test_one_of_several_models_is_chosen_by_name(cirr: Benchmark, tmp_path: Path) -> None:
    records = [
        {**record, "multi_gpt-4o_opt": ["other"] * 3, "multi_caption_t5": ["b"] * 3}
        for record in with_multi(cirr_records())
    ]
    path = write_json(tmp_path / "all.json", records)
    assert read(cirr, path).queries["100"].edits[0] == "a cat 0 0"
    chosen = read(cirr, path, edits="multi_gpt-4o_opt")
    assert chosen.queries["100"].edits == ("other",) * 3
    with pytest.raises(ExchangeError, match="no field 'multi_gpt-5' for edits"):
        read(cirr, path, edits="multi_gpt-5")
    for record in records:
        del record["multi_gpt-3.5_opt"], record["multi_caption_opt"]
        record["multi_caption_a"] = record["multi_caption_b"] = ["c"]
    with pytest.raises(ExchangeError, match="3 fields could be the captions"):
        read(cirr, write_json(tmp_path / "two.json", records))


def test_fashioniqs_files_are_known_by_their_name_or_first_record(
    fashioniq: Benchmark, tmp_path: Path
) -> None:
    dress = write_json(tmp_path / "cap.dress.val.json", with_multi(DRESS))
    shirt = write_json(tmp_path / "anything.json", with_multi(SHIRT))
    texts = read(fashioniq, shirt, dress)
    assert {key: own.edits[0] for key, own in texts.queries.items()} == {
        "dress/0": "a cat 0 0",
        "dress/1": "a cat 1 0",
        "shirt/0": "a cat 0 0",
    }
    written = write_ldre(texts, None, None, {})
    assert written == {"dress": with_multi(DRESS), "shirt": with_multi(SHIRT)}
    with pytest.raises(ExchangeError, match="no queries of shirt; import the files of all"):
        read(fashioniq, dress)
    swapped = write_json(tmp_path / "cap.shirt.json", with_multi(DRESS))
    with pytest.raises(ExchangeError, match=r"record 0: the reference is 'B1'; query 'shirt/0'"):
        read(fashioniq, swapped)


def test_programs_files_are_joined_by_position_and_their_failures_are_failures(
    cirr: Benchmark, tmp_path: Path
) -> None:
    mods = {
        "base_caption": ["a dog", "a cat"],
        "instruction": ["caption 0", "caption 1"],
        "modified_captions": ["a red dog", "caption 1"],
    }
    texts = read(cirr, write_json(tmp_path / "cirr_mods.json", mods))
    assert texts.queries["100"].single_edit == "a red dog"
    assert texts.queries["101"].single_edit == ""
    assert texts.queries["101"].failures == {
        "single_edit": "it is the instruction: the program failed there"
    }
    assert write_mods(texts, cirr.queries, single=True) == mods

    cvsi = {
        "base_caption": [["a dog", "b dog"], ["a cat", "b cat"]],
        "instruction": ["caption 0", "caption 1"],
        "modified_captions": [["a red dog"], ["a cat", "b cat"]],
        "added_content": ["a ball", ""],
    }
    both = read(cirr, write_json(tmp_path / "cvsi.json", cvsi), tmp_path / "cirr_mods.json")
    assert both.queries["100"].joined_edit == "a red dog"
    assert both.queries["100"].objects == "a ball"
    assert both.queries["100"].single_edit == "a red dog"
    assert sorted(both.queries["101"].failures) == ["joined_edit", "objects", "single_edit"]
    assert write_mods(both, cirr.queries, single=False) == cvsi

    shifted = {**mods, "instruction": ["caption 1", "caption 0"]}
    with pytest.raises(ExchangeError, match="record 0: the modification text is 'caption 1'"):
        read(cirr, write_json(tmp_path / "shifted.json", shifted))
    short = {name: values[:1] for name, values in mods.items()}
    with pytest.raises(ExchangeError, match="1 record; cirr val has 2 queries"):
        read(cirr, write_json(tmp_path / "short.json", short))
    uneven = {**mods, "instruction": ["caption 0"]}
    with pytest.raises(ExchangeError, match="different lengths"):
        read(cirr, write_json(tmp_path / "uneven.json", uneven))


def test_captions_of_the_programs_are_checked_by_name_and_text(
    cirr: Benchmark, tmp_path: Path
) -> None:
    queries = {
        "all_captions": [["a", "b"], ["c", "d"]],
        "gt_img_ids": [["wrong"], ["order"]],
        "relative_captions": ["caption 0", "caption 1"],
        "reference_names": ["dev-0-0-img0", "dev-7-0-img0"],
    }
    targets = {
        "target_captions": [[f"x{i}", f"y{i}"] for i in range(8)],
        "index_names": [["dev-0-0-img0"] * 4] * 8,
    }
    paths = [write_json(tmp_path / "q.json", queries), write_json(tmp_path / "t.json", targets)]
    texts = read(cirr, *paths)
    assert texts.queries["101"].captions == ("c", "d")
    assert texts.images["dev-3-0-img0"] == ("x3", "y3")
    wrong = {**queries, "reference_names": ["dev-0-0-img0", "dev-6-0-img0"]}
    with pytest.raises(ExchangeError, match="record 1: the reference is 'dev-6-0-img0'"):
        read(cirr, write_json(tmp_path / "w.json", wrong))
    fewer = {"target_captions": targets["target_captions"][:7]}
    with pytest.raises(ExchangeError, match=r"captions of 7 images.* has 8 images"):
        read(cirr, write_json(tmp_path / "f.json", fewer))


def test_own_rows_come_back_as_they_were_written(cirr: Benchmark, tmp_path: Path) -> None:
    rows = [
        {"query_id": "100", "captions": ["a\nb", "ü"], "edits": ["c", "d"], "objects": "x"},
        {"query_id": "101", "captions": ["e", "f"], "reference": "dev-7-0-img0"},
        {"image": "dev-3-0-img0", "captions": ["g", "h"]},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    texts = read(cirr, path)
    for name in ("again.jsonl", "again.parquet"):
        assert write_own(own_records(texts, cirr.queries), tmp_path / name) == 3
        assert read_own(tmp_path / name, cirr) == texts
    faults = {
        "line 3: the benchmark has no image 'nobody'": [*rows[:2], {"image": "nobody"}],
        "no query '7'": [*rows, {"query_id": "7"}],
        "no column caption;": [{"query_id": "100", "caption": "a"}, rows[1]],
        "'100' occurs twice": [*rows, rows[0]],
        r"1 of 2 queries of cirr val is absent \('101'\)": rows[:1],
        "the modification text is 'other'": [{**rows[0], "text": "other"}, rows[1]],
        "line 2, captions is 'e', expected a list": [rows[0], {**rows[1], "captions": "e"}],
        "line 2, captions, entry 1 is None, expected a text": [
            rows[0],
            {**rows[1], "captions": ["e", None]},
        ],
        "line 3: a row about image 'dev-3-0-img0' has its captions alone, not edits": [
            *rows[:2],
            {**rows[2], "edits": ["i", "j"]},
        ],
    }
    for message, changed in faults.items():
        path.write_text("\n".join(map(json.dumps, changed)))
        with pytest.raises(ExchangeError, match=message):
            read(cirr, path)
    empty = [{**row, "image": ""} for row in rows[:2]]  # as absent
    for name in ("rows.NDJSON", "bom.jsonl"):
        start = "\ufeff" if name == "bom.jsonl" else ""
        (tmp_path / name).write_text(start + "\n".join(map(json.dumps, empty)), "utf-8")
        assert read(cirr, tmp_path / name).queries == texts.queries


def test_two_files_that_disagree_are_refused(cirr: Benchmark, tmp_path: Path) -> None:
    for name, edit in (("a.jsonl", "x"), ("b.jsonl", "y")):
        rows = ({"query_id": key, "single_edit": edit} for key in ("100", "101"))
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ExchangeError, match="query '100': two files give it different single_edit"):
        read(cirr, tmp_path / "a.jsonl", tmp_path / "b.jsonl")


def test_other_files_are_refused_with_the_known_forms(cirr: Benchmark, tmp_path: Path) -> None:
    for content in ({"0": ["a"]}, [], "text", {"captions": {}}):
        with pytest.raises(ExchangeError, match="none of the known forms"):
            read(cirr, write_json(tmp_path / "other.json", content))
