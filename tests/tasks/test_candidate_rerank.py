"""Two stages on a drawn world: scores by the network itself, orders by sorting them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from embedded_world.benchmarks import WorldSize, write_world
from flows.profiles import resolve_profile
from storage.collections.collection import ingest
from storage.locations.location import Location
from storage.tables.costs import Cost, TableCost
from tasks.methods import label_of, why_not_ready
from tasks.planner import gallery_stages, plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder, load_query_set
from tasks.scoring.costs import query_cost
from tasks.scoring.making import made_by
from tasks.scoring.scores import score_ranking
from tasks.settings import Profile, RerankSettings
from tasks.stages.rankings import RankingStage, ranking_protocol
from tasks.stages.rerank_scores import CandidateList
from tasks.stages.reranked import RerankedStage
from tasks.stages.stage import Stage, in_order
from tests.fakes.drawn import small_settings
from tests.fakes.filled_tables import fill
from tests.fakes.killed_processes import killable_processes, killed
from tests.fakes.rerankers import write_rerankers

SIZE = WorldSize(subsets=4, circo_queries=2, fashion_queries=2, distractors=12)
FIRST = 4
"""Images that are read again."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world and two networks."""
    folder = tmp_path_factory.mktemp("rerank")
    write_world(folder / "world", SIZE, seed=67)
    write_rerankers(folder)
    return folder


@pytest.fixture(scope="module")
def profile(folder: Path) -> Profile:
    """The tiny profile with these, whose world is ingested."""
    settings = small_settings(folder / "tables") | {
        "composed.candidate-filter": str(folder / "filter"),
        "composed.candidate-rerank": str(folder / "rerank"),
        "rerank.candidates.cirr": FIRST,
        "shards.rerank": 5,
    }
    profile = resolve_profile("tiny", settings)
    ref = reference(folder)
    ingest(Location(profile.root), image_folder(ref.load()), ref.collection_name)
    return profile


def reference(folder: Path) -> BenchmarkRef:
    return BenchmarkRef(name="cirr", root=str(folder / "world" / "cirr"))


def ranked(profile: Profile, folder: Path, *methods: str) -> list[RankingStage]:
    plan = plan_evaluation(profile, reference(folder), methods)
    for stage in in_order(plan.rankings):
        fill(stage)
    return list(plan.rankings)


def rows_of(stage: Stage) -> dict[str, dict[str, Any]]:
    return {row["query_id"]: row for row in stage.table().read(keys=stage.planned()).to_dicts()}


def test_the_best_images_are_ordered_by_the_cross_encoder_itself(
    profile: Profile, folder: Path
) -> None:
    """Scores one pair at a time; the images behind the first K, and the filter's own ranking, stay.

    The five members of a group are scored whether or not the filter found them.
    """
    import torch

    from models.composed.checkpoint import load_composed

    network: Any = load_composed(folder / "rerank").network
    first, second = ranked(profile, folder, "candidate-filter", "candidate-rerank")
    assert isinstance(second, RerankedStage)
    assert second.scores.first.spec_key == first.spec_key
    before, after = rows_of(first), rows_of(second)
    query_set = load_query_set(profile.root, reference(folder))
    paths = query_set.benchmark.image_paths

    def tokens(name: str) -> torch.Tensor:
        pixels = next(network.preprocess.batches([Image.open(paths[name])], 1))
        return network.image_tokens(pixels)

    moved = 0
    for query in query_set.benchmark.queries[:6]:
        old, new = before[query.query_id], after[query.query_id]
        with torch.no_grad():
            texts = network.tokenised([query.texts[0]])
            fused = network.fused(tokens(query.reference), texts)
            own = {
                name: float(network.scores(fused, texts, tokens(name)))
                for name in {*old["names"][:FIRST], *query.subset}
            }
        wanted = sorted(old["names"][:FIRST], key=lambda name: -own[name])
        assert new["names"] == wanted + old["names"][FIRST:]
        assert new["scores"][FIRST:] == old["scores"][FIRST:]
        np.testing.assert_allclose(
            new["scores"][:FIRST], [own[name] for name in wanted], atol=1e-4, rtol=1e-4
        )
        assert new["subset_names"] == sorted(query.subset, key=lambda name: -own[name])
        moved += new["names"] != old["names"]
    assert moved
    metrics = score_ranking(second).metrics
    assert metrics["recall@50"] == score_ranking(first).metrics["recall@50"]


def test_scores_resume_and_are_made_once(profile: Profile, folder: Path) -> None:
    """A stage that stopped after one shard makes the others alone; a rerun makes none."""
    (second,) = ranked(profile, folder, "candidate-rerank")
    stage = second.scores.model_copy(update={"root": str(folder / "again")})
    table = stage.table()
    shards = table.plan(second.scores.planned(), stage.shard_size).shards
    assert len(shards) > 1
    made = second.scores.rows(shards[0].members, lambda count: None)
    table.publish(shards[0], made)
    left = table.plan(second.scores.planned(), stage.shard_size)
    assert left.todo == sum(len(shard.members) for shard in shards[1:])
    assert fill(second.scores) == 0
    assert fill(second) == 0


def test_a_row_belongs_to_a_query_and_its_candidates(profile: Profile, folder: Path) -> None:
    """Not to the first stage's order, nor to what else that stage ranked."""
    (second,) = ranked(profile, folder, "candidate-rerank")
    lists = second.scores.lists()
    some = next(iter(lists.values()))
    assert some.images == tuple(sorted(some.images))
    other = CandidateList(some.query, some.images[1:])
    assert other.key != some.key
    deeper = second.scores.model_copy(update={"count": FIRST + 1})
    assert deeper.spec_key == second.scores.spec_key
    assert {each.key for each in deeper.lists().values()} != {each.key for each in lists.values()}


def test_a_query_without_scores_says_so_and_is_not_ranked(profile: Profile, folder: Path) -> None:
    (second,) = ranked(profile, folder, "candidate-rerank")
    lists = second.scores.lists()
    lost, kept = sorted(lists)[:2]
    rows = second.scores.table().read(keys=[lists[lost].key, lists[kept].key]).to_dicts()
    for row in rows:
        if row["list_key"] == lists[lost].key:
            row |= {"scores": None, "status": "unreadable", "reason": "broken file"}
    other = second.scores.model_copy(update={"root": str(folder / "lost")})
    table = other.table()
    (shard,) = table.plan([row["list_key"] for row in rows], 10).shards
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    order = {key: place for place, key in enumerate(columns["list_key"])}
    places = [order[key] for key in shard.members]
    table.publish(shard, table.rows(**{n: [v[p] for p in places] for n, v in columns.items()}))
    reread = second.model_copy(update={"scores": other})
    made = {row["query_id"]: row for row in reread.rows([lost, kept], lambda n: None).to_pylist()}
    assert made[kept]["status"] == "ok"
    assert (made[lost]["status"], made[lost]["names"]) == ("missing_input", None)
    assert "broken file" in made[lost]["reason"]


def test_rows_say_what_they_were_made_by(profile: Profile, folder: Path) -> None:
    (second,) = ranked(profile, folder, "candidate-rerank")
    assert made_by(second)["second_stage"].endswith(f"over the first {FIRST}")
    assert ranking_protocol(second)["second_stage"]["candidates"] == FIRST
    assert ranking_protocol(second)["zero_shot"] is True


def test_a_query_pays_for_both_stages(profile: Profile, folder: Path) -> None:
    """Search is what the three tables noted for a row; every one of them is counted."""
    first, second = ranked(profile, folder, "candidate-filter", "candidate-rerank")
    noted = {
        "rankings": Cost(1, device_seconds=1.0),
        "rerank_scores": Cost(2, device_seconds=10.0),
    }
    costs = {
        stage.location.join(f"{stage.table_name}/{stage.spec_key}"): TableCost(
            noted.get(stage.table_name, Cost(1, device_seconds=0.25)), Cost()
        )
        for stage in in_order([second])
    }
    assert query_cost(first, costs).search_seconds == pytest.approx(1.0)
    assert query_cost(second, costs).search_seconds == pytest.approx(1.0 + 10.0 / 2 + 1.0)


def test_a_search_reads_the_best_images_again(profile: Profile, folder: Path) -> None:
    """Hits of one query: the filter's first K in the order of the re-ranker's scores."""
    from tasks.search_gallery import search_gallery

    (second,) = ranked(profile, folder, "candidate-rerank")
    collection = second.benchmark.collection_name
    query = load_query_set(profile.root, reference(folder)).benchmark.queries[0]
    image = Path(reference(folder).load().image_paths[query.reference]).read_bytes()
    own = profile.model_copy(update={"rerank": RerankSettings(candidates={"circo": FIRST})})

    def found(method: str) -> list[tuple[str, float]]:
        gallery = gallery_stages(own, collection, method)
        for stage in gallery.values():
            fill(stage)
        result = search_gallery(own, collection, gallery, image, query.text, method=method, k=6)
        return [(hit.image_id, hit.score) for hit in result.hits]

    plain, again = found("candidate-filter"), found("candidate-rerank")
    assert {image for image, _ in plain[:FIRST]} == {image for image, _ in again[:FIRST]}
    assert again[FIRST:] == plain[FIRST:]
    scores = [score for _, score in again[:FIRST]]
    assert scores == sorted(scores, reverse=True)
    assert [image for image, _ in plain] != [image for image, _ in again]


def test_a_supervised_second_stage_labels_the_row(
    profile: Profile, folder: Path, tmp_path: Path
) -> None:
    _, place = write_rerankers(
        tmp_path, {"zero_shot": False, "zero_shot_reason": "trained on CIRR train"}
    )
    labelled = profile.model_copy(
        update={"composed": {**profile.composed, "candidate-rerank": str(place)}}
    )
    assert "CIRR train" in label_of("candidate-rerank", labelled)
    assert label_of("candidate-filter", labelled) == ""
    (second,) = plan_evaluation(labelled, reference(folder), ["candidate-rerank"]).rankings
    said = ranking_protocol(second)
    assert (said["zero_shot"], said["zero_shot_reason"]) == (False, "trained on CIRR train")


def test_what_is_missing_is_named(profile: Profile) -> None:
    lacking = profile.model_copy(update={"composed": {}})
    assert "composed.candidate-filter" in why_not_ready("candidate-filter", lacking)
    alone = profile.model_copy(
        update={"composed": {"candidate-filter": profile.composed["candidate-filter"]}}
    )
    assert "composed.candidate-rerank" in why_not_ready("candidate-rerank", alone)
    assert why_not_ready("candidate-rerank", profile) == ""


@pytest.mark.slow
def test_scores_of_killed_processes_are_whole(
    profile: Profile, folder: Path, tmp_path: Path
) -> None:
    """SIGKILL at random moments: no list of candidates is lost, doubled or scored otherwise."""
    (second,) = ranked(profile, folder, "candidate-rerank")
    quiet = second.scores
    ref = reference(folder)
    root = str(tmp_path / "root")
    ingest(Location(root), image_folder(ref.load()), ref.collection_name)
    own = profile.model_copy(update={"root": root})
    (again,) = plan_evaluation(own, ref, ["candidate-rerank"]).rankings
    assert isinstance(again, RerankedStage)
    stage = again.scores.model_copy(update={"shard_size": 3})
    assert stage.spec_key == quiet.spec_key

    for behind in in_order([stage.first]):
        fill(behind)

    def done() -> bool:
        return not stage.table().plan(stage.planned(), stage.shard_size).shards

    with killable_processes() as parent:
        killed(parent, "RerankScoreStage", stage.model_dump_json(), done, 3)
    read = ["candidates", "scores", "status"]
    rows = stage.table().read(read)
    assert sum(len(part) for part in stage.table().iter_parts(["status"])) == len(rows)
    before = quiet.table().read(read, stage.planned())
    assert rows["list_key"].to_list() == sorted(stage.planned())
    assert rows.drop("scores").equals(before.drop("scores"))
    for made, wanted in zip(rows["scores"], before["scores"], strict=True):
        np.testing.assert_allclose(made.to_numpy(), wanted.to_numpy(), atol=1e-4)


def test_candidates_of_another_filter_are_refused(
    profile: Profile, folder: Path, tmp_path: Path
) -> None:
    """The re-ranker reads the states that its own filter makes of a query.

    A filter saved in half precision is the same one.
    """
    from models.composed.checkpoint import load_composed, save_composed

    other, _ = write_rerankers(tmp_path, seed=5)
    mixed = profile.model_copy(
        update={"composed": {**profile.composed, "candidate-filter": str(other)}}
    )
    with pytest.raises(ValueError, match=r"trained on another filter than .*composed\.candidate-f"):
        ranked(mixed, folder, "candidate-rerank")

    own = load_composed(folder / "filter")
    half = tmp_path / "half"
    save_composed(half, own.system, own.network, own.settings, base={}, provenance={}, dtype="fp16")
    network: Any = load_composed(folder / "rerank").network
    halved: Any = load_composed(half).network
    assert network.other_weight(halved) == ""
    assert network.other_weight(load_composed(other).network) != ""
