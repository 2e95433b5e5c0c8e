"""i-CIR, GeneCIS and PinPoint ranked and scored: metrics recomputed from the published names."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from storage.benchmarks import pinpoint
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.planner import plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder
from tasks.scoring.scores import MethodScores, score_ranking
from tasks.settings import Profile
from tasks.stages.rankings import RankingStage
from tasks.stages.stage import in_order
from tests.fakes.benchmark_layouts import (
    ICIR_DATABASE,
    ICIR_QUERIES,
    genecis_record,
    pinpoint_content,
    write_icir,
    write_json,
)
from tests.fakes.drawn import draw_folder, small_profile
from tests.fakes.filled_tables import fill


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    return small_profile(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return draw_folder(tmp_path_factory.mktemp("pictures"), 70, seed=8)


def scored(
    profile: Profile, pictures: Sequence[Path], root: Path, files: Sequence[Path], **chosen: Any
) -> tuple[RankingStage, MethodScores, dict[str, dict[str, Any]]]:
    """The ranking of image and text added, its scores, and its rows by query."""
    for source, file in zip(pictures, files, strict=False):
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, file)
    ref = BenchmarkRef(root=str(root), **chosen)
    ingest(Location(profile.root), image_folder(ref.load()), ref.collection_name)
    (stage,) = plan_evaluation(profile, ref, ["image-text-sum"]).rankings
    for each in in_order([stage]):
        fill(each)
    rows = {row["query_id"]: row for row in stage.table().read().to_dicts()}
    return stage, score_ranking(stage, resamples=20), rows


def test_icir_ranks_each_database_to_its_end(
    profile: Profile, pictures: list[Path], tmp_path: Path
) -> None:
    """A database deeper than the 50 names that other benchmarks keep."""
    more = [f"database/a/{i}.jpg,{'at night' if i == 64 else ''},a" for i in range(5, 65)]
    database = [*ICIR_DATABASE[:6], *more]
    root = write_icir(tmp_path, database=database)
    files = [root / line.partition(",")[0] for line in (*database, *ICIR_QUERIES)]
    stage, scores, rows = scored(profile, pictures, root, files, name="icir", split="test")

    single = []
    for query in stage.benchmark.load().queries:
        names = rows[f"{query.category}/{query.query_id}"]["names"]
        assert sorted(names) == sorted(stage.benchmark.load().galleries[query.category])
        area, found = 0.0, 0
        for place, name in enumerate(names):
            if name in query.targets:
                before = found / place if place else 1.0
                found += 1
                area += (before + found / (place + 1)) / 2 / len(query.targets)
        single.append(area)
    assert stage.depth == 64
    # Over queries, and not over instances: two of the three are of one instance.
    assert scores.metrics["map"] == pytest.approx(100 * sum(single) / 3)
    (values,) = scores.single
    assert values["map"].tolist() == pytest.approx(single)
    assert [len(hits) for hits in scores.first_hits] == [3]


def test_genecis_counts_the_targets_place_among_its_own_images(
    profile: Profile, pictures: list[Path], tmp_path: Path
) -> None:
    task = "focus_object"
    groups = [(1, 2, 3, 4, 5), (2, 6, 1, 3, 7), (8, 5, 9, 10, 1)]
    write_json(tmp_path / f"{task}.json", [genecis_record(task, *each) for each in groups])
    files = [tmp_path / "val2017" / f"{number:012d}.jpg" for number in range(11)]
    stage, scores, rows = scored(profile, pictures, tmp_path, files, name="genecis", split=task)

    places = []
    for query, (_, target, *others) in zip(stage.benchmark.load().queries, groups, strict=True):
        names = rows[query.query_id]["subset_names"]
        assert sorted(names) == sorted(f"{number:012d}" for number in (target, *others))
        places.append(names.index(f"{target:012d}"))
    for k in (1, 2, 3):
        expected = 100 * sum(place < k for place in places) / 3
        assert scores.metrics[f"recall_subset@{k}"] == pytest.approx(expected)
    assert list(scores.metrics) == [f"recall_subset@{k}" for k in (1, 2, 3)]
    assert scores.first_hits[0].tolist() == places


def test_pinpoint_counts_wrong_answers_and_keeps_queries_of_several_references_apart(
    profile: Profile, pictures: list[Path], tmp_path: Path
) -> None:
    content = pinpoint_content()
    write_json(tmp_path / pinpoint.FILE, content)
    files = [tmp_path / "images" / f"{name}.png" for name in "abcdr"]
    _, scores, rows = scored(profile, pictures, tmp_path, files, name="pinpoint", split="test")

    wrong, above, precision = [], [], []
    for query in content["queries"]:
        names = rows[query["id"]]["names"]
        right = [place for place, name in enumerate(names) if name in query["positives"]]
        bad = [place for place, name in enumerate(names) if name in query["negatives"]]
        wrong.append(len(bad) / 10)
        above.append(min(bad, default=99) < min(right))
        precision.append(sum((i + 1) / (place + 1) for i, place in enumerate(right)) / len(right))
    assert scores.metrics["neg@10"] == pytest.approx(100 * sum(wrong) / 2)
    assert scores.metrics["any_neg@10"] == 50.0
    assert scores.metrics["neg_before_pos"] == 50.0 * sum(above)
    assert scores.metrics["map@10/one_reference"] == pytest.approx(100 * precision[0])
    assert scores.metrics["map@10/more_references"] == pytest.approx(100 * precision[1])
    assert scores.protocol["references"] == "the first; 1 of 2 queries have several"
