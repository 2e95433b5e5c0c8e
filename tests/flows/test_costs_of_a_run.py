"""The costs that a run reports are those in the books of its server, also after a crash of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedded_world.benchmarks import WorldSize, write_world
from tasks.scoring.costs import recorded_costs
from tasks.scoring.ledger import read_ledger
from tests.fakes.bad_servers import healthy
from tests.fakes.drawn import small_settings
from tests.fakes.metered_server import Books
from tests.fakes.openai_server import MODEL, FakeOpenAIServer

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

SIZE = WorldSize(subsets=1, circo_queries=6, fashion_queries=1, distractors=8)


def test_calls_and_tokens_of_a_run_are_those_that_its_server_saw(
    prefect_api: None, tmp_path: Path
) -> None:
    from flows.score_benchmark import score_benchmark

    world = write_world(tmp_path / "world", SIZE, seed=3)
    books = Books(healthy, fails=5)
    given: dict[str, Any] = {
        "benchmark": "circo",
        "folder": str(world["circo"]),
        "methods": ("cirevl", "cvsi"),
        "out": str(tmp_path / "report"),
    }
    with FakeOpenAIServer(then=books) as server:
        settings = {
            **small_settings(tmp_path / "tables", captions=2, shard=8),
            "generator.engine": "openai",
            "generator.model": MODEL,
            "generator.base_url": server.base_url,
            "generator.timeout": 30.0,
        }
        first = score_benchmark(**given, settings=settings)
        seen = books.calls, books.prompt_tokens, books.answer_tokens
        again = score_benchmark(**given, settings=settings)
    assert (books.calls, books.prompt_tokens, books.answer_tokens) == seen
    assert books.calls > 6 * 3
    for report in (first, again):
        rows = [own for own in report["costs"]["tables"] if "/rewrites/" in own["where"]]
        every = [part for own in rows for part in (own, own["wasted"])]
        names = ("calls", "prompt_tokens", "answer_tokens")
        assert tuple(sum(part[name] for part in every) for name in names) == seen
    (of_methods,) = first["costs"]["a query"].values()
    assert set(of_methods) == {"cirevl", "cvsi"}
    recorded = recorded_costs(read_ledger(str(tmp_path / "tables")))
    assert sorted(cost["calls"] for cost in recorded.values()) == sorted(
        cost["calls"] for cost in of_methods.values()
    )
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert "What a query costs" in page
