"""What a query of a method costs, against what a server saw and a count by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from embedded_world.benchmarks import WorldSize, write_world
from storage.tables.costs import Cost, TableCost
from tasks.report.costs import COLUMNS, NOTHING, UNKNOWN, cells, costs_markdown, quality_svg
from tasks.report.records import CostRow
from tasks.scoring.costs import QueryCost, query_cost, run_costs, table_costs
from tests.fakes.bad_servers import healthy
from tests.fakes.metered_server import Books
from tests.fakes.openai_server import FakeOpenAIServer
from tests.tasks.test_bad_servers import profile_for

if TYPE_CHECKING:
    from tasks.stages.rankings import RankingStage

METHODS = ("image-only", "lincir", "cirevl", "cvsi")
SIZE = WorldSize(subsets=1, circo_queries=6, fashion_queries=1, distractors=8)
CAPTIONS = 2


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, RankingStage], dict[str, TableCost], Books]:
    """Rankings of an evaluation, costs of its tables, and the books of its server."""
    from storage.collections.collection import ingest
    from storage.locations.location import Location
    from tasks.planner import plan_evaluation
    from tasks.query_sets import BenchmarkRef, image_folder
    from tasks.stages.run import run_shard
    from tasks.stages.stage import in_order

    out = tmp_path_factory.mktemp("costs")
    circo = write_world(out / "world", SIZE, seed=3)["circo"]
    ref = BenchmarkRef(name="circo", root=str(circo), split="val")
    books = Books(healthy)
    with FakeOpenAIServer(then=books) as server:
        profile = profile_for(out / "tables", server)
        ingest(Location(profile.root), image_folder(ref.load()), ref.collection_name)
        rankings = plan_evaluation(profile, ref, METHODS).rankings
        for stage in in_order(rankings):
            for shard in stage.table().plan(stage.planned_keys(), stage.shard_size).shards:
                run_shard.fn(stage, vars(shard))
    return {stage.method: stage for stage in rankings}, table_costs(rankings), books


@pytest.mark.slow
def test_all_tables_together_took_what_the_server_saw(
    made: tuple[dict[str, RankingStage], dict[str, TableCost], Books],
) -> None:
    _, costs, books = made
    asked = [own for own in run_costs(costs) if "/rewrites/" in own["where"]]
    assert sum(own["calls"] for own in asked) == books.calls
    assert sum(own["prompt_tokens"] for own in asked) == books.prompt_tokens
    assert sum(own["answer_tokens"] for own in asked) == books.answer_tokens
    assert len({own["where"] for own in run_costs(costs)}) == len(costs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "calls"),
    [
        ("image-only", 0),
        ("lincir", 0),
        ("cirevl", 1 + 1),  # a caption, an edit
        ("cvsi", 1 + CAPTIONS + 1),  # one image captioned, an edit of each caption, the objects
    ],
)
def test_calls_of_a_query(
    method: str,
    calls: int,
    made: tuple[dict[str, RankingStage], dict[str, TableCost], Books],
) -> None:
    rankings, costs, _ = made
    cost = query_cost(rankings[method], costs)
    assert cost.calls == pytest.approx(calls)
    assert bool(cost.text_seconds) == bool(calls)
    assert cost.unknown == ()
    assert cost.search_seconds
    assert cost.retrieval_seconds == pytest.approx(cost.search_seconds + cost.encoding_seconds)
    trained = method in ("lincir", "cvsi")
    # 245 seconds on one thread, says the recipe of the network that ships.
    assert cost.training_hours == pytest.approx(245 / 3600 if trained else 0)


@pytest.mark.slow
def test_a_query_needs_more_than_its_share_of_answers_that_queries_have_in_common(
    made: tuple[dict[str, RankingStage], dict[str, TableCost], Books],
) -> None:
    """Means are of questions: a table that other benchmarks or methods fill too changes nothing."""
    rankings, costs, _ = made
    before = query_cost(rankings["cvsi"], costs)
    doubled = {where: own + own for where, own in costs.items()}
    after = query_cost(rankings["cvsi"], doubled)
    assert after.calls == pytest.approx(before.calls)
    assert after.seconds == pytest.approx(before.seconds)


@pytest.mark.slow
def test_tables_without_notes_are_named_and_nothing_is_made_up(
    made: tuple[dict[str, RankingStage], dict[str, TableCost], Books],
) -> None:
    rankings, costs, _ = made
    silent = {w: TableCost() if "/rewrites/" in w else own for w, own in costs.items()}
    cost = query_cost(rankings["cirevl"], silent)
    assert (cost.text_seconds, cost.calls, cost.seconds) == (None, None, None)
    assert cost.retrieval_seconds
    assert "edited captions of" in " ".join(cost.unknown)
    wasted = {where: TableCost(wasted=Cost(calls=9)) for where in costs}
    assert query_cost(rankings["cirevl"], wasted).calls is None


def test_a_table_and_a_plot_show_the_figures() -> None:
    dear = QueryCost(1.5, 17.0, 900.0, 120.0, 24.7, 0.03, 0.02, 0.1)
    plain = QueryCost(0.0, 0.0, 0.0, 0.0, 0.0, 0.01, 0.01, 0.1)
    older = QueryCost(0.0, None, None, None, None, 0.01, 0.01, None, ("captions",))
    rows = [
        CostRow("cvsi", "CVSI", 28.24, dear),
        CostRow("old", "Older", 20.0, older),
        CostRow("image-only", "Image only", 9.5, plain),
    ]
    expected = ("1.500", "24.7000", "0.05000", "17.00", "900.0", "120.0")
    assert dict(zip(COLUMNS, cells(rows[0]), strict=True)) == dict(
        zip(COLUMNS, expected, strict=True)
    )
    assert cells(rows[2])[:2] == (NOTHING, NOTHING)
    assert cells(rows[1])[1] == UNKNOWN
    lines = costs_markdown(rows, "mAP@10").splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["Image only", "CVSI", "Older"]
    drawn = quality_svg(rows, "mAP@10")
    assert drawn.count("<svg") == 1
    assert all(word in drawn for word in ("CVSI", "Image only", "seconds a query", "mAP@10"))
    assert "Older" not in drawn
    assert quality_svg(rows[1:2], "mAP@10") == ""
