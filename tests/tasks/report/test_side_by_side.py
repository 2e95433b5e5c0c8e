"""The same queries by two methods: right by one and wrong by the other, or named."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.cli import main
from embedded_world.benchmarks import WorldSize, write_world
from storage.collections.collection import ingest
from storage.locations.location import Location
from storage.tables.table import IncompleteTable
from tasks.planner import plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder
from tasks.report.records import Strip
from tasks.report.side_by_side import side_by_side, side_by_side_page
from tasks.stages.rankings import RankingStage
from tests.fakes.drawn import small_profile
from tests.fakes.filled_tables import fill_all

SIZE = WorldSize(subsets=2, circo_queries=12, fashion_queries=2, distractors=20)
METHODS = ("text-only", "image-only")


@pytest.fixture(scope="module")
def rankings(tmp_path_factory: pytest.TempPathFactory) -> list[RankingStage]:
    """A drawn CIRCO ranked by its texts alone and by its images alone."""
    folder = tmp_path_factory.mktemp("sides")
    write_world(folder / "world", SIZE, seed=5)
    profile = small_profile(folder / "tables", captions=2, shard=512)
    ref = BenchmarkRef(name="circo", root=str(folder / "world" / "circo"))
    ingest(Location(profile.root), image_folder(ref.load()), ref.collection_name)
    plan = plan_evaluation(profile, ref, METHODS)
    fill_all(plan.rankings)
    return list(plan.rankings)


def right(stage: RankingStage, top: int) -> set[str]:
    """Queries with a target among the top names, as the table has them."""
    targets = {query.query_id: set(query.targets) for query in stage.benchmark.load().queries}
    names = dict(stage.table().read(["names"]).iter_rows())
    return {query for query in targets if targets[query] & set(names[query][:top])}


def ids(pairs: tuple[tuple[Strip, Strip], ...]) -> list[str]:
    assert all(first.query_id == second.query_id for first, second in pairs)
    return [first.query_id for first, _ in pairs]


@pytest.mark.parametrize("top", [1, 3])
def test_queries_that_the_first_answers_rightly_and_the_second_wrongly(
    rankings: list[RankingStage], top: int
) -> None:
    for first, second in (rankings, rankings[::-1]):
        expected = right(first, top) - right(second, top)
        pairs = side_by_side(first, second, top=top, count=50)
        assert set(ids(pairs)) == expected
        for left, other in pairs:
            assert len(left.results) == len(other.results) == top
            assert any(result.is_target for result in left.results)
            assert not any(result.is_target for result in other.results)
    assert right(rankings[0], top) != right(rankings[1], top)
    few = side_by_side(*rankings, top=1, count=2)
    assert len(few) == min(2, len(right(rankings[0], 1) - right(rankings[1], 1)))


def test_named_queries_are_shown_in_their_order(rankings: list[RankingStage]) -> None:
    names = [query.query_id for query in rankings[0].benchmark.load().queries]
    asked = [names[3], names[0]]
    assert ids(side_by_side(*rankings, queries=asked)) == asked
    with pytest.raises(ValueError, match="unknown query 'x'"):
        side_by_side(*rankings, queries=["x"])
    page = side_by_side_page(side_by_side(*rankings, queries=asked), "<b>two</b>", embedded=True)
    assert page.count('class="answer"') == 4
    assert "<b>two" not in page
    assert "Embedded world." in page


def test_what_cannot_be_compared_is_refused(rankings: list[RankingStage], tmp_path: Path) -> None:
    first, second = rankings
    ref = first.benchmark.model_copy(update={"split": "test"})
    elsewhere = second.model_copy(update={"benchmark": ref})
    with pytest.raises(ValueError, match="two benchmarks"):
        side_by_side(first, elsewhere)
    unmade = second.model_copy(update={"root": str(tmp_path)})
    with pytest.raises(IncompleteTable, match="nothing was made yet"):
        side_by_side(first, unmade)


def test_the_command_writes_the_page_and_makes_no_table(
    rankings: list[RankingStage], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage = rankings[0]
    folder = Location(stage.root).list("")
    asked = ["compare", *METHODS, "--benchmark=circo", f"--folder={stage.benchmark.root}",
             f"--root={stage.root}", f"--out={tmp_path / 'page.html'}", "-k1"]  # fmt: skip
    assert main([*asked, "--query=0"]) == 0
    assert capsys.readouterr().out == f"1 query: {tmp_path / 'page.html'}\n"
    assert "<html" in (tmp_path / "page.html").read_text()
    assert main([*asked[:1], "text-onli", *asked[2:]]) == 2
    assert "did you mean 'text-only'" in capsys.readouterr().err
    assert main([*asked[:1], "cvsi", *asked[2:]]) != 0
    assert "nothing was made yet" in capsys.readouterr().err
    assert list(Location(stage.root).list("")) == list(folder)
