"""`cirflow score`: the numbers of a predictions file, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployments.cli import main
from tests.deployments.refusals import refusal
from tests.fakes.benchmark_layouts import (
    CIRR_NAMES,
    fashioniq_query,
    write_circo,
    write_circo_listing,
    write_cirr,
    write_fashioniq,
    write_json,
)


def scored(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, float]:
    """The JSON object that `score --json` prints, and nothing but it."""
    assert main(["score", *arguments, "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert all(isinstance(value, float) for value in metrics.values())
    return metrics


def test_score_circo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_circo(tmp_path)
    write_circo_listing(tmp_path, range(1, 61))
    # Query 0 has the targets 3 and 5, found at ranks 2 and 4; query 1 has 9, at rank 1.
    first = [10, 3, 11, 5, *range(12, 58)]
    second = [9, *range(10, 59)]
    file = write_json(tmp_path / "p.json", {"0": first, "1": second})
    metrics = scored(
        capsys, "--benchmark=circo", "--split=val", f"--annotations={root}", f"--predictions={file}"
    )
    assert metrics["map@5"] == pytest.approx(100 * ((1 / 2 + 2 / 4) / 2 + 1) / 2)
    assert metrics["recall@5"] == 100.0
    assert metrics["map@10/negation"] == pytest.approx(50.0)
    assert metrics["map@10/addition"] == pytest.approx(75.0)


def test_score_cirr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = tuple(f"dev-{i}-0-img0" for i in range(60))
    root = write_cirr(tmp_path, names=names)
    # Query 100 goes from image 0 to image 3, query 101 from image 7 to image 2.
    first = [names[3], *(n for n in names if n not in (names[0], names[3]))][:50]
    second = [n for n in names if n not in (names[7], names[2])]
    second = [*second[:6], names[2], *second[6:]][:50]
    file = write_json(
        tmp_path / "p.json", {"version": "rc2", "metric": "recall", "100": first, "101": second}
    )
    arguments = ("--benchmark=cirr", "--split=val", f"--annotations={root}")
    metrics = scored(capsys, *arguments, f"--predictions={file}")
    assert metrics == {"recall@1": 50.0, "recall@5": 50.0, "recall@10": 100.0, "recall@50": 100.0}
    subset = {"100": [names[1], names[3], names[2]], "101": [names[2], names[3], names[4]]}
    file = write_json(tmp_path / "s.json", {"version": "rc2", "metric": "recall_subset", **subset})
    metrics = scored(capsys, *arguments, f"--predictions={file}")
    assert metrics == {
        "recall_subset@1": 50.0,
        "recall_subset@2": 100.0,
        "recall_subset@3": 100.0,
    }


def test_score_fashioniq(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"B{i:03d}" for i in range(60)]
    root = write_fashioniq(
        tmp_path,
        {"dress": names, "shirt": names},
        {
            "dress": [fashioniq_query("B000", "B001", "a", "b")],
            "shirt": [
                fashioniq_query("B002", "B003", "a", "b"),
                fashioniq_query("B004", "B005", "a", "b"),
            ],
        },
    )
    lists = {
        "dress": {"0": names[1:51]},
        "shirt": {"0": [*names[10:30], names[3], *names[30:59]], "1": names[6:56]},
    }
    file = write_json(tmp_path / "p.json", lists)
    metrics = scored(
        capsys,
        "--benchmark=fashioniq",
        "--split=val",
        f"--annotations={root}",
        f"--predictions={file}",
    )
    assert metrics["recall@10/dress"] == 100.0
    assert metrics["recall@10/shirt"] == 0.0
    assert metrics["recall@50/shirt"] == 50.0
    assert metrics["recall@10/average"] == 50.0
    assert metrics["recall@50/average"] == 75.0


def test_score_prints_the_protocol_for_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_circo(tmp_path, ids=range(1, 61))
    file = write_json(tmp_path / "p.json", {"0": list(range(2, 52)), "1": [1, *range(3, 52)]})
    arguments = ["--benchmark=circo", "--split=val", f"--annotations={root}"]
    assert main(["score", *arguments, f"--predictions={file}"]) == 0
    page = capsys.readouterr().out
    assert "map@10" in page
    assert "# queries: 2" in page


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"split": "test"}, "not public"),
        ({"benchmark": "cirko"}, "unknown benchmark 'cirko'; did you mean 'circo'?"),
        ({"split": "vall"}, "unknown split of circo 'vall'; did you mean 'val'?"),
        ({"annotations": "nowhere"}, "no such folder"),
        ({"predictions": "nowhere.json"}, "nowhere.json"),
    ],
)
def test_score_refuses_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], said: str
) -> None:
    write_circo(tmp_path, ids=range(1, 61))
    write_circo(tmp_path, split="test")
    file = write_json(tmp_path / "p.json", {"0": list(range(2, 52)), "1": [1, *range(3, 52)]})
    given = {
        "benchmark": "circo",
        "split": "val",
        "annotations": str(tmp_path),
        "predictions": str(file),
    }
    options = [f"--{key}={value}" for key, value in (given | change).items()]
    assert said in refusal(capsys, "score", *options)


def test_score_refuses_a_list_with_a_repetition(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = CIRR_NAMES
    root = write_cirr(tmp_path)
    lists = {"100": [names[3], names[3], *names[4:]], "101": list(names[:7])}
    file = write_json(tmp_path / "p.json", {"version": "rc2", "metric": "recall", **lists})
    message = refusal(
        capsys,
        "score",
        "--benchmark=cirr",
        "--split=val",
        f"--annotations={root}",
        f"--predictions={file}",
    )
    assert "100" in message
    assert names[3] in message
