"""Predictions of others in the ledger, and rankings as predictions files."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from deployments.cli import main
from embedded_world.benchmarks import WorldSize, write_world
from storage.benchmarks.errors import BenchmarkError
from storage.benchmarks.registry import load_annotations
from storage.collections.collection import ingest
from storage.exchange.sources import ExchangeError, open_sources
from storage.locations.location import Location
from tasks.imported_predictions import export_predictions, import_predictions
from tasks.planner import plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder
from tasks.scoring.ledger import read_ledger
from tasks.scoring.predictions import score_predictions
from tasks.scoring.scores import score_ranking
from tests.fakes.drawn import small_profile
from tests.fakes.filled_tables import fill_all

SIZE = WorldSize(subsets=9, circo_queries=2, fashion_queries=9, distractors=20)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predictions")
    write_world(folder, SIZE, seed=6)
    return folder


def shuffled(world: Path, metric: str, seed: int) -> dict[str, Any]:
    """Predictions of CIRR in random order, in the form of its server."""
    loaded, rng = load_annotations("cirr", world / "cirr", "val"), Random(seed)
    content: dict[str, Any] = {"version": "rc2", "metric": metric}
    for query in loaded.queries:
        pool = loaded.galleries[""] if metric == "recall" else query.subset
        names = [name for name in pool if name != query.reference]
        rng.shuffle(names)
        content[query.query_id] = names[: 50 if metric == "recall" else 3]
    return content


def written(folder: Path, name: str, content: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(content))
    return path


def test_both_files_of_cirr_become_one_row_that_names_them(world: Path, tmp_path: Path) -> None:
    paths = [
        written(tmp_path, f"{metric}.json", shuffled(world, metric, 1))
        for metric in ("recall", "recall_subset")
    ]
    root, folder = str(tmp_path / "tables"), str(world / "cirr")
    given = ("cirr", "val", folder, "theirs", "ViT-X")
    files = open_sources(paths)
    scores, new = import_predictions(root, files, *given)
    separate = [score_predictions("cirr", "val", folder, path) for path in paths]
    both = separate[0] | separate[1]
    assert {n: scores.metrics[n] for n in both} == both
    assert scores.metrics["average"] == pytest.approx(
        (both["recall@5"] + both["recall_subset@1"]) / 2
    )
    assert new == len(scores.metrics)
    assert import_predictions(root, files, *given)[1] == 0
    (entry,) = read_ledger(root)
    assert (entry["method"], entry["backbone"], entry["world"]) == ("theirs", "ViT-X", "embedded")
    said = " and ".join(f"{f.name}, sha256 {f.sha256[:12]}" for f in files)
    assert entry["made"] == {"source": f"imported from {said}"}


def test_two_files_of_one_method_are_told_apart(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tmp_path / "tables")
    for seed in (1, 2):
        path = written(tmp_path, f"run{seed}.json", shuffled(world, "recall", seed))
        place = ["--benchmark", "cirr", "--folder", str(world / "cirr"), "--root", root]
        asked = ["import", "predictions", str(path), *place, "--method", "theirs"]
        assert main([*asked, "--not-zero-shot", "trained on CIRR"]) == 0
    capsys.readouterr()
    assert main(["leaderboard", "--root", root]) == 0
    shown = capsys.readouterr().out
    assert "source imported from run1.json, sha256" in shown
    assert "source imported from run2.json, sha256" in shown
    assert shown.count("not zero-shot: trained on CIRR") == 2


def test_the_subset_file_alone_stands_in_the_leaderboard(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has none of the metrics that rows are sorted by."""
    root = str(tmp_path / "tables")
    place = ["--benchmark", "cirr", "--folder", str(world / "cirr"), "--root", root]
    for metric in ("recall_subset", "recall"):
        path = written(tmp_path, f"{metric}.json", shuffled(world, metric, 4))
        assert main(["import", "predictions", str(path), *place, "--method", metric]) == 0
    capsys.readouterr()
    assert main(["leaderboard", "--root", root]) == 0
    heading, first, last = capsys.readouterr().out.splitlines()[1:4]
    assert heading.split() == ["method", "R@1", "R@5", "R@10", "Rs@1"]
    assert [len(line.split()) for line in (first, last)] == [4, 2]
    assert [line.split()[0] for line in (first, last)] == ["recall", "recall_subset"]
    assert main(["leaderboard", "--root", root, "--by", "source"]) == 0
    assert "recall_subset.json" in capsys.readouterr().out


def test_a_label_that_is_given_later_is_not_lost(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = str(tmp_path / "tables")
    path = written(tmp_path, "run.json", shuffled(world, "recall", 5))
    place = ["--benchmark", "cirr", "--folder", str(world / "cirr"), "--root", root]
    asked = ["import", "predictions", str(path), *place, "--method", "theirs"]
    assert main(asked) == main([*asked, "--not-zero-shot", "trained on CIRR"]) == 0
    capsys.readouterr()
    assert main(["leaderboard", "--root", root]) == 0
    assert capsys.readouterr().out.count("not zero-shot: trained on CIRR") == 1
    for name, given in (("--method", " "), ("--method", "a\nb"), ("--not-zero-shot", "a\tb")):
        assert main([*asked, name, given]) == 2
        assert name in capsys.readouterr().err


def test_a_second_file_of_one_kind_and_a_wrong_id_are_refused(world: Path, tmp_path: Path) -> None:
    same = [written(tmp_path, f"{seed}.json", shuffled(world, "recall", seed)) for seed in (1, 2)]
    given = ("cirr", "val", str(world / "cirr"), "theirs")
    with pytest.raises(ExchangeError, match="second file of the kind ranking"):
        import_predictions(str(tmp_path / "tables"), open_sources(same), *given)
    wrong = shuffled(world, "recall", 3)
    wrong["999999"] = wrong.pop("0")
    bad = open_sources([written(tmp_path, "bad.json", wrong)])
    with pytest.raises(BenchmarkError, match="999999"):
        import_predictions(str(tmp_path / "tables"), bad, *given)
    assert read_ledger(str(tmp_path / "tables")) == []


@pytest.mark.parametrize("name", ["cirr", "fashioniq"])
def test_a_ranking_that_is_written_and_imported_scores_the_same(
    name: str, world: Path, tmp_path: Path
) -> None:
    profile = small_profile(tmp_path / "tables", captions=2, shard=512)
    ref = BenchmarkRef(name=name, root=str(world / name))
    ingest(Location(profile.root), image_folder(ref.load()), ref.collection_name)
    (ranking,) = plan_evaluation(profile, ref, ["text-only"]).rankings
    fill_all([ranking])
    files = open_sources(export_predictions(ranking, tmp_path / "out"))
    assert export_predictions(ranking, tmp_path / "out") == [file.path for file in files]
    (tmp_path / "others").mkdir()
    theirs = tmp_path / "others" / files[-1].name
    theirs.write_text("{}")
    with pytest.raises(ExchangeError, match="exists with other predictions"):
        export_predictions(ranking, theirs.parent)
    assert [theirs] == list(theirs.parent.iterdir())
    assert theirs.read_text() == "{}"
    scores, _ = import_predictions(
        str(tmp_path / "other"), files, name, "val", str(world / name), "text-only"
    )
    here = score_ranking(ranking)
    assert scores.metrics == pytest.approx(dict(here.metrics))
    for metric, interval in here.intervals.items():
        assert scores.intervals[metric] == pytest.approx(interval)
