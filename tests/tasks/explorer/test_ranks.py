"""Every query of an evaluation: ranks that were chosen by hand, and the ledger's own metrics."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fakes.ranked_world import CAPTION, RANKS, RankedWorld, ranked_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> RankedWorld:
    return ranked_world(tmp_path_factory.mktemp("ranked"))


def test_ranks_are_those_that_were_published(world: RankedWorld) -> None:
    from tasks.explorer.ranks import column, ranked_queries

    frame = ranked_queries(world.profile.root, world.key).frame
    for method, ranks in RANKS.items():
        assert frame[column("rank", method)].to_list() == ranks
        assert frame[column("place", method)].to_list() == [min(r or 5, 5) for r in ranks]


def test_the_ranks_give_the_ledgers_metrics(world: RankedWorld) -> None:
    from tasks.explorer.ranks import column, ranked_queries
    from tasks.explorer.selection import recall
    from tasks.scoring.ledger import entries_by_run

    ranked = ranked_queries(world.profile.root, world.key)
    ledger = entries_by_run(world.profile.root)
    for method, run in ranked.evaluation.runs.items():
        metrics = ledger[run]["metrics"]
        for k in (1, 5, 10, 50):
            assert recall(ranked.frame, method, k) == pytest.approx(metrics[f"recall@{k}"]["value"])
        main = ranked.frame[column("score", method)].mean()
        assert 100 * main == pytest.approx(metrics["recall@1"]["value"])


def test_an_evaluation_is_written_down_once(world: RankedWorld) -> None:
    from tasks.explorer.evaluations import evaluation_of, finished_evaluations, record_evaluation
    from tasks.planner import plan_evaluation

    (found,) = finished_evaluations(world.profile.root)
    plan = plan_evaluation(world.profile, found.ref, list(RANKS))
    again = record_evaluation(world.profile, plan.rankings, "a backbone", world.report.parent)
    assert again == world.key == found.key
    assert len(finished_evaluations(world.profile.root)) == 1
    assert (found.benchmark, found.world, found.queries) == ("cirr", "embedded", 12)
    with pytest.raises(LookupError, match=f"did you mean '{world.key}'"):
        evaluation_of(world.profile.root, world.key[:-1])


def test_an_evaluation_is_listed_once_whatever_changed_beside_its_rankings(
    world: RankedWorld, tmp_path: Path
) -> None:
    from tasks.explorer.evaluations import evaluation_of, finished_evaluations, record_evaluation
    from tasks.planner import plan_evaluation

    root = str(shutil.copytree(world.profile.root, tmp_path / "root"))
    moved = world.profile.model_copy(update={"root": root})
    rankings = plan_evaluation(moved, evaluation_of(root, world.key).ref, list(RANKS)).rankings
    again = record_evaluation(moved, rankings, "a backbone", world.report.parent)
    assert again != world.key
    assert len(finished_evaluations(root)) == 1
    assert [evaluation_of(root, key).key for key in (again, world.key)] == [again, world.key]
    record_evaluation(moved, rankings[:-1], "a backbone", world.report.parent)
    record_evaluation(moved, rankings, "a backbone", tmp_path)
    assert len(finished_evaluations(root)) == 3


def test_a_strip_holds_hits_and_texts(world: RankedWorld) -> None:
    from tasks.explorer.ranks import ranked_queries
    from tasks.explorer.strips import query_strips, query_texts

    ranked = ranked_queries(world.profile.root, world.key)
    query = ranked.frame["query"][3]
    (strip,) = query_strips(ranked, [query], ["cvsi", "ldre"], 5)
    cvsi, ldre = strip.answers
    assert [hit.is_target for hit in cvsi.hits] == [False, True, False, False, False]
    assert [hit.is_target for hit in ldre.hits] == [True, False, False, False, False]
    assert (cvsi.rank, ldre.rank) == (2, 1)
    assert cvsi.hits[1].picture == strip.targets[0]
    assert len(strip.reference.image_id) == 64
    (texts,) = query_texts(ranked, [query], "cvsi")
    assert (texts.captions, texts.said) == ((CAPTION, CAPTION), "")
    with pytest.raises(LookupError, match="unknown query"):
        query_strips(ranked, ["none"], ["cvsi"], 5)


def test_pictures_are_found_by_the_words_of_their_captions(world: RankedWorld) -> None:
    from tasks.explorer.pictures import pictures_of

    found = pictures_of(world.profile, "cirr-val", "HAND caption", 1, 5)
    every = pictures_of(world.profile, "cirr-val", "", 1, 5)
    assert found.found == found.captioned == every.captioned > 0
    assert every.found == every.images > found.found
    assert {each.captions for each in found.shown} == {(CAPTION, CAPTION)}
    assert pictures_of(world.profile, "cirr-val", "no such words", 1, 5).found == 0
    first, second = (pictures_of(world.profile, "cirr-val", "", n, 5).shown for n in (1, 2))
    assert not {each.image_id for each in first} & {each.image_id for each in second}


def test_inputs_that_cannot_be_used_are_shown_with_their_reason(tmp_path: Path) -> None:
    from storage.collections.collection import ingest
    from storage.locations.location import Location
    from tasks.explorer.pictures import pictures_of
    from tests.fakes.drawn import draw_folder, small_profile

    draw_folder(tmp_path / "in", 2)
    (tmp_path / "in" / "broken.png").write_bytes(b"not a picture")
    ingest(Location(str(tmp_path / "tables")), tmp_path / "in", "own")
    found = pictures_of(small_profile(tmp_path / "tables"), "own", "", 1, 10)
    assert (found.images, found.captioned) == (2, 0)
    ((path, status, reason),) = found.unusable
    assert path == "broken.png"
    assert status != "ok"
    assert reason
