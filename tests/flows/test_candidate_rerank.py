"""Two stages through Prefect: the filter's row, the re-ranker's, and what is made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from embedded_world.benchmarks import WorldSize, write_world
from tests.fakes.drawn import small_settings
from tests.fakes.rerankers import write_rerankers

pytestmark = [pytest.mark.slow, pytest.mark.prefect]

METHODS = ["candidate-filter", "candidate-rerank"]


def test_both_stages_are_scored_and_made_once(tmp_path: Path, prefect_results: Path) -> None:
    from flows.running import StageFailed
    from flows.score_benchmark import score_benchmark

    write_world(tmp_path / "world", WorldSize(subsets=4, circo_queries=2, fashion_queries=2), 67)
    stage_one, stage_two = write_rerankers(tmp_path)

    def scored(first: Path, out: str) -> dict[str, Any]:
        networks = {"candidate-filter": str(first), "candidate-rerank": str(stage_two)}
        made: dict[str, Any] = score_benchmark(
            benchmark="cirr",
            folder=str(tmp_path / "world" / "cirr"),
            methods=METHODS,
            settings={
                **small_settings(tmp_path / "tables"),
                **{f"composed.{name}": place for name, place in networks.items()},
                "rerank.candidates.cirr": 4,
            },
            out=str(tmp_path / out),
        )
        return made

    made = scored(stage_one, "out")
    (scores,) = made["scores"].values()
    assert scores.keys() == set(METHODS)
    # The first four change places: nothing beyond them does.
    first, second = (scores[name] for name in METHODS)
    assert first["recall@5"] == second["recall@5"]
    assert first["recall@50"] == second["recall@50"]
    (looked,) = [each for each in made["stages"] if each["title"].startswith("second look")]
    assert (looked["made"], looked["failed"]) == (8, 0)
    assert "Candidate re-ranking" in (tmp_path / "out" / "report.html").read_text()

    again = scored(stage_one, "again")
    assert {each["title"]: each["made"] for each in again["stages"] if each["made"]} == {}
    assert json.dumps(again["scores"]) == json.dumps(made["scores"])

    other, _ = write_rerankers(tmp_path / "other", seed=5)
    with pytest.raises(StageFailed, match="trained on another filter"):
        scored(other, "mixed")
