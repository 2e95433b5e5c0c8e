"""`cirflow leaderboard`: recorded scores as numbers and as a page, and what tells rows apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployments.cli import main
from storage.locations.location import Location
from storage.tables.table import Shard, open_table
from tasks.scoring.ledger import RESULTS_SPEC


def record(
    root: Path,
    run: str,
    method: str,
    value: float,
    world: str,
    benchmark: str = "circo",
    **protocol: object,
) -> None:
    """Write one scored ranking with two metrics into the ledger."""
    ledger = open_table(Location(str(root)), "results", RESULTS_SPEC)
    metrics = {"map@10": value, "map@10/addition": value / 2}
    keys = sorted(f"{run}-{name}" for name in metrics)
    names = [key.removeprefix(f"{run}-") for key in keys]
    same = {
        "run": run,
        "method": method,
        "backbone": "ViT-B-32 openai",
        "benchmark": benchmark,
        "split": "val",
        "queries": 220,
        "coverage": 1.0,
        "protocol": json.dumps({"world": world, **protocol}),
        "provenance": "{}",
        "created": "2026-01-01T00:00:00+00:00",
    }
    rows = ledger.rows(
        result_key=keys,
        category=[name.partition("/")[2] for name in names],
        metric=names,
        value=[metrics[name] for name in names],
        low=[metrics[name] - 1 for name in names],
        high=[metrics[name] + 1 for name in names],
        **{column: [each] * len(keys) for column, each in same.items()},
    )
    ledger.publish(Shard.of(keys), rows)


def test_leaderboard_json_is_every_number_and_the_page_is_sorted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path, "a" * 8, "image-only", 3.5, "real")
    record(tmp_path, "b" * 8, "cvsi", 31.25, "real")
    record(tmp_path, "c" * 8, "lincir", 77.5, "embedded")
    assert main(["leaderboard", "--root", str(tmp_path), "--json"]) == 0
    entries = {entry["method"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert set(entries) == {"image-only", "cvsi", "lincir"}
    assert entries["cvsi"]["metrics"] == {
        "map@10": {"value": 31.25, "low": 30.25, "high": 32.25},
        "map@10/addition": {"value": 15.625, "low": 14.625, "high": 16.625},
    }
    assert entries["lincir"]["world"] == "embedded"
    assert main(["leaderboard", "--root", str(tmp_path)]) == 0
    page = " ".join(capsys.readouterr().out.split())  # long titles are wrapped
    real, embedded = page.index("circo val, 220 queries"), page.index("embedded world")
    assert page.index("cvsi") < page.index("image-only")
    assert (page.index("lincir") > embedded) == (embedded > real)
    assert "31.25" in page


def test_leaderboard_says_what_a_published_number_is_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`record` scores ViT-B-32 openai on CIRCO val, which no paper has."""
    record(tmp_path, "a" * 8, "cvsi", 31.25, "real")
    record(tmp_path, "b" * 8, "image-only", 3.5, "real")
    record(tmp_path, "c" * 8, "lincir", 77.5, "embedded")
    assert main(["leaderboard", "--root", str(tmp_path)]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    shown = {line.split()[0]: line for line in lines if line}
    assert shown["cvsi"].endswith(" 31.25  22.47 (ViT-B/32, test)")
    assert shown["image-only"].endswith(" 3.50  1.70 (ViT-L/14, test)")
    assert shown["lincir"].endswith(" 77.50")


def test_leaderboard_shows_benchmarks_that_are_not_registered_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path, "a" * 8, "cvsi", 31.25, "real", benchmark="sketches", style="circo")
    assert main(["leaderboard", "--root", str(tmp_path)]) == 0
    assert "sketches val, 220 queries" in capsys.readouterr().out
    assert main(["leaderboard", "--root", str(tmp_path), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    # Rows of earlier versions call the family a style.
    assert entry["protocol"]["family"] == "circo"
    assert "style" not in entry["protocol"]


def test_leaderboard_labels_what_is_not_zero_shot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path, "a" * 8, "cvsi", 31.25, "real")  # as recorded before the label existed
    record(tmp_path, "b" * 8, "instructcir", 40.0, "real", zero_shot=False,
           zero_shot_reason="trained on CIRR")  # fmt: skip
    record(tmp_path, "c" * 8, "lincir", 20.0, "real", zero_shot=True)
    assert main(["leaderboard", "--root", str(tmp_path)]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    place = next(i for i, line in enumerate(lines) if line.startswith("instructcir"))
    assert lines[place + 1] == "not zero-shot: trained on CIRR"
    assert sum("not zero-shot" in line for line in lines) == 1
    assert main(["leaderboard", "--root", str(tmp_path), "--json"]) == 0
    entries = {entry["method"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert {name: entry["zero_shot"] for name, entry in entries.items()} == {
        "cvsi": True, "instructcir": False, "lincir": True}  # fmt: skip


def twice(root: Path) -> None:
    """One method with two networks, and another method."""
    shipped = {"network": "a23c4bb8", "texts": "annotated", "data": "same"}
    again = {**shipped, "network": "8e5e1e81"}
    record(root, "a" * 8, "instructcir", 88.33, "embedded", made=shipped)
    record(root, "b" * 8, "instructcir", 61.67, "embedded", made=again)
    record(root, "c" * 8, "lincir", 70.0, "embedded", made={"texts": "annotated", "data": "same"})


def test_leaderboard_tells_rows_of_one_method_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice(tmp_path)
    main(["leaderboard", "--root", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("70.00")[0].split()[0] for line in lines[2:5]] == [
        "instructcir", "lincir", "instructcir"]  # fmt: skip
    assert lines[1].index("what differs") == lines[2].index("network") == lines[4].index("network")
    assert lines[2].endswith("88.33  network a23c4bb8")
    assert lines[3].endswith("70.00")
    assert lines[4].endswith("61.67  network 8e5e1e81")
    main(["leaderboard", "--root", str(tmp_path), "--json"])
    told = {each["run"][0]: each["differs"] for each in json.loads(capsys.readouterr().out)}
    assert told == {"a": "network a23c4bb8", "b": "network 8e5e1e81", "c": ""}


def test_leaderboard_chooses_rows_by_a_facet_and_lays_them_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice(tmp_path)
    main(["leaderboard", "--root", str(tmp_path), "--where", "network=8e5"])
    assert capsys.readouterr().out.splitlines()[2].endswith("61.67  network 8e5e1e81")
    main(["leaderboard", "--root", str(tmp_path), "--by", "network"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:4]]
    assert lines == [
        ["method", "backbone", "8e5e1e81", "a23c4bb8", "none"],
        ["instructcir", "ViT-B-32", "openai", "61.67", "88.33"],
        ["lincir", "ViT-B-32", "openai", "70.00"],
    ]
    assert main(["leaderboard", "--root", str(tmp_path), "--by", "netwrok"]) != 0
    assert "did you mean 'network'" in capsys.readouterr().err


def test_leaderboard_labels_texts_that_are_not_the_benchmarks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path, "a" * 8, "cvsi", 31.25, "real", made={"texts": "generated", "data": "same"},
           texts={"source": "generated", "content": "1"})  # fmt: skip
    main(["leaderboard", "--root", str(tmp_path)])
    _, heading, line, label, *_ = capsys.readouterr().out.splitlines()
    assert "published" not in heading
    assert line.endswith("31.25")  # CVSI's published number is of the annotated texts
    assert label.strip() == "generated texts of queries"


def test_leaderboard_without_scores_says_how_to_make_some(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["leaderboard", "--root", str(tmp_path)]) == 0
    assert "cirflow run score-benchmark" in capsys.readouterr().out
    assert main(["leaderboard", "--root", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
