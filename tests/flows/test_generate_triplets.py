"""The generation flow under Prefect: what it makes, reuses, refuses and leaves to read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.collections.collection import ingest
from storage.locations.location import Location
from storage.tables.table import IncompleteTable
from tasks.training.triplet_sets import parse_triplet_set
from tests.fakes.difference_server import captions_in, difference, triplet_settings
from tests.fakes.drawn import draw_folder
from tests.fakes.openai_server import FakeOpenAIServer, Reply, chat

pytestmark = pytest.mark.prefect


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A collection of eight pictures."""
    draw_folder(tmp_path / "pictures", 8, seed=51)
    ingest(Location(str(tmp_path / "tables")), tmp_path / "pictures", "drawn")
    return tmp_path / "tables"


def test_made_once_then_reused_then_grown(
    root: Path, tmp_path: Path, task_states: Callable[[str], dict[str, str]]
) -> None:
    from flows.generate_triplets import generate_triplets

    with FakeOpenAIServer(then=difference) as server:

        def run(count: int) -> dict[str, Any]:
            settings = triplet_settings(root, server.base_url, shard=8)
            out = str(tmp_path / "out")
            return generate_triplets(["drawn"], count, settings=settings, out=out)

        first = run(10)
        assert [stage["made"] for stage in first["stages"]] == [first["stages"][0]["planned"], 10]
        asked = len(server.requests)
        again = run(10)
        assert [stage["made"] for stage in again["stages"]] == [0, 0]
        assert len(server.requests) == asked == 10
        states = task_states("10 triplets of drawn")
        assert states == {
            "plan single captions of pairs of drawn": "Cached",
            "plan triplets from pairs of drawn": "Cached",
        }
        more = run(16)
        assert (more["stages"][1]["made"], more["stages"][1]["reused"]) == (6, 10)
        assert len(server.requests) == 16
    assert more["triplets"] == first["triplets"] | {"count": 16}
    written = parse_triplet_set(str(tmp_path / "out" / "triplets.json"))
    assert written.model_dump(mode="json") == json.loads(json.dumps(more["triplets"]))
    assert len(written.triplets()) == more["statuses"]["ok"]
    assert "16 triplets" in Path(more["report"]).read_text()


def test_too_many_gaps_are_refused_after_the_report_was_written(
    root: Path, tmp_path: Path, prefect_results: Path
) -> None:
    from flows.generate_triplets import generate_triplets

    def half(request: dict[str, Any]) -> Reply:
        before, _ = captions_in(request["messages"][0]["content"])
        return chat("$") if "square" in before else difference(request)

    with FakeOpenAIServer(then=half) as server:
        settings = triplet_settings(root, server.base_url, shard=8)
        given: dict[str, Any] = {"settings": settings, "out": str(tmp_path / "out")}
        with pytest.raises(IncompleteTable, match=r"no words.*counted in .*\.html"):
            generate_triplets(["drawn"], 56, allow_gaps=0.0, **given)
        assert "Why pairs have no text" in (tmp_path / "out" / "triplets.html").read_text()
        made = generate_triplets(["drawn"], 56, allow_gaps=1.0, **given)
    assert made["statuses"]["rejected"] > 0
    assert sum(made["statuses"].values()) == 56


def test_a_server_that_is_not_there_is_told_and_captions_stay(
    root: Path, tmp_path: Path, prefect_results: Path
) -> None:
    from flows.generate_triplets import generate_triplets
    from models.protocols import EngineUnavailable

    with FakeOpenAIServer(then=difference) as server:
        settings = triplet_settings(root, server.base_url, shard=8)
    with pytest.raises(EngineUnavailable, match=r"triplets from pairs of drawn: .*does not answer"):
        generate_triplets(["drawn"], 6, settings=settings, out=str(tmp_path / "out"))
    with FakeOpenAIServer(then=difference) as server:
        settings = triplet_settings(root, server.base_url, shard=8)
        made = generate_triplets(["drawn"], 6, settings=settings, out=str(tmp_path / "out"))
    assert [stage["made"] for stage in made["stages"]] == [0, 6]
