"""Predictions files: what is accepted, and what each kind of bad file is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.benchmarks import predictions
from storage.benchmarks.errors import PredictionError
from storage.benchmarks.predictions import Predictions
from storage.benchmarks.records import Benchmark
from storage.benchmarks.registry import benchmark_facts, load_annotations
from tests.fakes.benchmark_layouts import (
    CIRR_NAMES,
    fashioniq_query,
    write_circo,
    write_cirr,
    write_fashioniq,
    write_json,
)

Data = dict[str, Any]


def check_predictions(loaded: Benchmark, data: Any, *, exact: bool = False) -> Predictions:
    form = benchmark_facts(loaded.name).predictions
    return predictions.check_predictions(loaded, form, data, exact=exact)


def read_predictions(loaded: Benchmark, path: Path) -> Predictions:
    return predictions.read_predictions(loaded, benchmark_facts(loaded.name).predictions, path)


@pytest.fixture
def cirr(tmp_path: Path) -> Benchmark:
    return load_annotations("cirr", write_cirr(tmp_path / "cirr"), "val")


@pytest.fixture
def circo(tmp_path: Path) -> Benchmark:
    return load_annotations("circo", write_circo(tmp_path / "circo"), "val")


@pytest.fixture
def fashioniq(tmp_path: Path) -> Benchmark:
    names = [f"B{image}" for image in range(60)]
    queries = [fashioniq_query("B0", "B1", "a", "b"), fashioniq_query("B2", "B3", "c", "d")]
    root = write_fashioniq(tmp_path / "fiq", {"dress": names}, {"dress": queries})
    return load_annotations("fashioniq", root, "val")


def _cirr_recall() -> Data:
    # All seven images but the reference (image 0, then image 7), best first.
    lists = {"100": list(CIRR_NAMES[1:]), "101": list(CIRR_NAMES[:7])}
    return {"version": "rc2", "metric": "recall", **lists}


def _cirr_subset() -> Data:
    lists = {"100": list(CIRR_NAMES[3:6]), "101": list(CIRR_NAMES[2:5])}
    return {"version": "rc2", "metric": "recall_subset", **lists}


def _circo() -> Data:
    return {"0": list(range(1, 51)), "1": list(range(100, 150))}


def _fashioniq() -> Data:
    return {"dress": {"0": [f"B{i}" for i in range(50)], "1": [f"B{i}" for i in range(59, 9, -1)]}}


def test_cirr_names_become_gallery_indices(cirr: Benchmark) -> None:
    checked = check_predictions(cirr, _cirr_recall())
    assert checked.kind == "ranking"
    assert checked.lists[""].tolist() == [[1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6]]


def test_cirr_groups_are_told_by_the_metric_field(cirr: Benchmark) -> None:
    checked = check_predictions(cirr, _cirr_subset())
    assert checked.kind == "subset"
    assert checked.lists[""].tolist() == [[3, 4, 5], [2, 3, 4]]


def test_lists_follow_the_queries_not_the_file(cirr: Benchmark) -> None:
    backwards = dict(reversed(_cirr_recall().items()))
    assert check_predictions(cirr, backwards).lists[""][0, 0] == 1


def test_circo_ids_may_be_integers_or_digits(circo: Benchmark) -> None:
    numbers = check_predictions(circo, _circo())
    digits = check_predictions(
        circo, {key: [f"{i:012d}" for i in v] for key, v in _circo().items()}
    )
    names = numbers.categories[""].gallery
    assert [names[i] for i in numbers.lists[""][1, :3]] == ["100", "101", "102"]
    assert (numbers.lists[""] == digits.lists[""]).all()


def test_circo_ids_outside_a_known_gallery_are_refused(tmp_path: Path) -> None:
    root = write_circo(tmp_path, ids=range(1, 141))
    loaded = load_annotations("circo", root, "val")
    with pytest.raises(PredictionError, match="query 1: '141' is not one of the 140 gallery"):
        check_predictions(loaded, _circo())


def test_fashioniq_lists_are_keyed_by_query_index(fashioniq: Benchmark) -> None:
    checked = check_predictions(fashioniq, _fashioniq())
    assert checked.lists["dress"].shape == (2, 50)
    assert checked.lists["dress"][1, :3].tolist() == [59, 58, 57]


def test_longer_lists_are_read_to_the_depth_but_refused_in_a_submission(circo: Benchmark) -> None:
    longer = {**_circo(), "0": list(range(1, 61))}
    assert check_predictions(circo, longer).lists[""].shape == (2, 50)
    with pytest.raises(PredictionError, match="60 names, exactly 50"):
        check_predictions(circo, longer, exact=True)


def _set(key: str, value: Any) -> Callable[[Data], Data]:
    return lambda data: {**data, key: value}


def _drop(key: str) -> Callable[[Data], Data]:
    return lambda data: {name: value for name, value in data.items() if name != key}


def _head(key: str, *first: Any) -> Callable[[Data], Data]:
    return lambda data: {**data, key: [*first, *data[key][len(first) :]]}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_drop("101"), r"1 is absent \('101'\)"),
        (_set("999", []), r"1 is not of this split \('999'\)"),
        (_drop("metric"), "which it is for: 'recall', 'recall_subset'"),
        (_set("metric", ["recall"]), '"metric" is'),
        (_set("version", "rc1"), 'write "rc2"'),
        (_set("100", None), "query 100: expected a list, best first, found None"),
        (_set("100", "dev"), "expected a list"),
        (_set("100", list(CIRR_NAMES[1:5])), "query 100: 4 names, at least 7"),
        (_head("100", CIRR_NAMES[3]), "'dev-3-0-img0' occurs twice"),
        (_head("100", CIRR_NAMES[0]), "reference image 'dev-0-0-img0' is in the list"),
        (_head("100", CIRR_NAMES[1] + ".png"), "no folder or extension"),
        (_head("100", 17), "17 is not an image name"),
        (_head("100", None), "None is not an image name"),
        (_head("100", "x" * 10_000), r"'x+\.\.\. is not one of the 8 gallery images of cirr val"),
    ],
)
def test_bad_cirr_files_are_told_what_is_wrong(
    cirr: Benchmark, change: Callable[[Data], Data], said: str
) -> None:
    with pytest.raises(PredictionError, match=said):
        check_predictions(cirr, change(_cirr_recall()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_head("100", CIRR_NAMES[7]), "'dev-7-0-img0' is not one of 'dev-1"),
        (_head("100", CIRR_NAMES[0]), "reference image"),
        (_set("100", list(CIRR_NAMES[3:5])), "2 names, at least 3"),
    ],
)
def test_bad_subset_files_are_told_what_is_wrong(
    cirr: Benchmark, change: Callable[[Data], Data], said: str
) -> None:
    with pytest.raises(PredictionError, match=said):
        check_predictions(cirr, change(_cirr_subset()))


@pytest.mark.parametrize(
    "value", [1.0, True, -1, "-1", "1e3", "٣", "", 10**12, "1" * 13, [1], {"id": 1}, None]
)
def test_bad_circo_ids_are_refused(circo: Benchmark, value: Any) -> None:
    with pytest.raises(PredictionError, match="is not a COCO image id"):
        check_predictions(circo, _head("0", value)(_circo()))


def test_circo_duplicates_are_seen_through_their_spelling(circo: Benchmark) -> None:
    with pytest.raises(PredictionError, match="'2' occurs twice"):
        check_predictions(circo, _head("0", "002")(_circo()))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "categories are none; the annotations hold 'dress'"),
        ({**_fashioniq(), "toptee": {}}, "'dress', 'toptee'; the annotations hold 'dress'"),
        ({"dress": []}, "dress: expected an object"),
        ({"dress": {"0": []}}, "2 lists are needed, one per dress query index; 1 is absent"),
        ({"dress": {"0": [], "1": []}}, "dress query 0: 0 names, at least 50"),
        ({"dress": {"00": [], "1": []}}, r"1 is not of this split \('00'\)"),
    ],
)
def test_bad_fashioniq_files_are_told_what_is_wrong(
    fashioniq: Benchmark, data: Any, said: str
) -> None:
    with pytest.raises(PredictionError, match=said):
        check_predictions(fashioniq, data)


@pytest.mark.parametrize("data", [[], None, 3, "x", [[1, 2]]])
def test_anything_but_an_object_is_refused(circo: Benchmark, data: Any) -> None:
    with pytest.raises(PredictionError, match="expected a JSON object"):
        check_predictions(circo, data)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"0": [1, NaN]}', "NaN is not JSON"),
        ('{"0": [1], "0": [2]}', "key '0' occurs twice"),
        ('{"0": [1', "not valid JSON"),
        ("", "not valid JSON"),
    ],
)
def test_broken_files_are_named(circo: Benchmark, tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(content)
    with pytest.raises(PredictionError, match=said) as told:
        read_predictions(circo, path)
    assert str(path) in str(told.value)


def test_absent_file_and_checks_both_name_the_path(circo: Benchmark, tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match=r"mine\.json: no such file"):
        read_predictions(circo, tmp_path / "mine.json")
    path = write_json(tmp_path / "mine.json", {"0": []})
    with pytest.raises(PredictionError, match=r"mine\.json: 2 lists are needed"):
        read_predictions(circo, path)


def test_reference_may_be_ranked_where_the_protocol_keeps_it(tmp_path: Path) -> None:
    root = write_cirr(tmp_path)
    kept = load_annotations("cirr", root, "val", exclude_reference=False)
    everything = {"100": list(CIRR_NAMES), "101": list(CIRR_NAMES)}
    data = json.loads(json.dumps({**_cirr_recall(), **everything}))
    assert check_predictions(kept, data).lists[""].shape == (2, 8)
