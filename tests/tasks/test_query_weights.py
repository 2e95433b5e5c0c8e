"""METHOD+weights on a drawn world: a gate trained on generated triplets, ranks by naive sums."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from embedded_world.benchmarks import WorldSize, write_world
from flows.profiles import resolve_profile
from flows.requests.train_weights import train_weights
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.methods import why_not_ready
from tasks.planner import gallery_stages, plan_evaluation, weighed_family
from tasks.query_sets import BenchmarkRef, image_folder, load_query_set
from tasks.scoring.scores import score_ranking
from tasks.scoring.weight_controls import weight_controls
from tasks.settings import Profile
from tasks.stages.pair_samples import PairSample, PairSource
from tasks.stages.rankings import ranking_protocol
from tasks.stages.verified import VerifiedStage
from tasks.stages.weighted import WeightedStage
from tests.fakes.drawn import small_settings
from tests.fakes.filled_tables import fill_all

if TYPE_CHECKING:
    from tasks.training.query_weights import GateJob

SIZE = WorldSize(subsets=2, circo_queries=1, fashion_queries=1, distractors=2)
METHOD = "cvsi+weights"
PAIRS = 20


@pytest.fixture(scope="module")
def ref(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkRef:
    folder = tmp_path_factory.mktemp("weights")
    write_world(folder / "world", SIZE, seed=72)
    return BenchmarkRef(name="cirr", root=str(folder / "world" / "cirr"))


@pytest.fixture(scope="module")
def profile(ref: BenchmarkRef) -> Profile:
    root = Path(ref.root).parent.parent / "tables"
    profile = resolve_profile("tiny", small_settings(root))
    ingest(Location(profile.root), image_folder(ref.load()), ref.collection_name)
    return profile


@pytest.fixture(scope="module")
def job(profile: Profile, ref: BenchmarkRef) -> GateJob:
    """Triplets of the world's pictures, their features, and the training."""
    from flows.generate_triplets import triplet_set, triplet_stage
    from tasks.training.query_weights import GateJob, planned_content

    sources = (PairSource(collection=ref.collection_name, within="collection"),)
    texts = triplet_stage(profile, PairSample(sources=sources, count=PAIRS))
    fill_all([texts])
    request = train_weights(
        triplets=triplet_set(texts).model_dump(mode="json"),
        settings=small_settings(Path(profile.root)),
        families=("cirr",),
        training={"validation": 2, "step": 0.5, "penalties": [0.01]},
    )
    family = weighed_family(profile, request.triplets, request.method, "cirr")
    fill_all(family.stages)
    assert fill_all(family.stages) == 0
    content = planned_content(request.triplets, request.training)
    return GateJob(
        profile.root,
        request.method,
        request.triplets,
        {"cirr": family},
        request.training,
        content,
    )


@pytest.fixture(scope="module")
def weighing(profile: Profile, job: GateJob) -> Profile:
    """The profile with the trained gate."""
    from tasks.training.query_weights import train_gates

    made = train_gates.fn(job, 0.0)
    return profile.changed(query_weights={"cvsi": made["checkpoint"]})


@pytest.fixture(scope="module")
def stage(weighing: Profile, ref: BenchmarkRef) -> WeightedStage:
    (stage,) = plan_evaluation(weighing, ref, [METHOD]).rankings
    assert isinstance(stage, WeightedStage)
    fill_all([stage])
    return stage


def test_a_published_gate_is_kept_and_tells_what_it_learned_from(
    job: GateJob, weighing: Profile
) -> None:
    folder = Path(weighing.query_weights["cvsi"])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {"gate.json", "README.md", "cost.json"} <= before.keys()
    from tasks.training.query_weights import train_gates

    state = train_gates.fn(job, 0.0)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert state.name == "Cached"
    card = before["README.md"].decode()
    assert "| cirr | oracle |" in card
    assert "generated triplets of cirr-val" in card
    assert job.key in folder.name


def test_ranks_are_those_of_a_sum_by_each_querys_own_weights(
    stage: WeightedStage, profile: Profile, ref: BenchmarkRef
) -> None:
    query_set = load_query_set(profile.root, ref.pinned(profile.root))
    made = stage.features(query_set, "")
    weights = stage.weighed(made)[2]
    assert len(np.unique(weights.round(6), axis=0)) > 1
    unit = {
        name: own / np.linalg.norm(own, axis=1, keepdims=True) for name, own in made.queries.items()
    }
    shown = sum(
        weight
        * np.asarray(made.gallery[name][:])
        / np.linalg.norm(made.gallery[name][:], axis=1, keepdims=True)
        for name, weight in stage.recipe.gallery.items()
    )
    shown = shown / np.linalg.norm(shown, axis=1, keepdims=True)
    table = stage.table().read(keys=stage.planned()).to_dicts()
    rows = {row["query_id"]: row for row in table}
    for place, query in enumerate(made.view.queries):
        own = sum(
            weights[place, a] * unit[name][place] for a, name in enumerate(stage.weigher.parts)
        )
        order = np.argsort(-(shown @ own), kind="stable")
        wanted = [made.view.gallery[i] for i in order if made.view.gallery[i] != query.reference]
        assert rows[query.query_id]["names"] == wanted[: stage.depth]


def test_controls_are_paired_and_the_oracle_is_never_behind(stage: WeightedStage) -> None:
    scores = score_ranking(stage)
    rows = weight_controls(stage, scores, step=0.5)
    names = ["best fixed", "of other queries", "oracle, from labels"]
    assert list(rows) == [f"{METHOD}: {name}" for name in names]
    fixed, other, oracle = (row.metrics["recall@1"] for row in rows.values())
    # The fixed weights are of this grid, so that the oracle may choose them.
    assert oracle >= fixed
    assert {len(row.draws["recall@1"]) for row in rows.values()} == {400}
    assert 0 <= other <= 100


def test_the_gate_is_in_the_identity_and_in_the_protocol(
    stage: WeightedStage, weighing: Profile, ref: BenchmarkRef, tmp_path: Path
) -> None:
    said = ranking_protocol(stage)["query_weights"]
    assert said["per query"] == list(stage.weigher.parts)
    content = (Path(stage.gate) / "gate.json").read_text()
    changed = content.replace('"scale": [', '"scale": [1.5, ', 1)
    assert changed != content
    (tmp_path / "gate.json").write_text(content)
    moved = stage.model_copy(update={"gate": str(tmp_path)})
    assert moved.spec_key == stage.spec_key  # a gate is known by its numbers
    (tmp_path / "gate.json").write_text(changed)
    with pytest.raises(ValueError, match="damaged at cirr"):
        _ = stage.model_copy(update={"gate": str(tmp_path)}).spec_key


def test_a_verifier_may_look_at_what_a_gate_ranked(weighing: Profile, ref: BenchmarkRef) -> None:
    (verified,) = plan_evaluation(weighing, ref, [f"{METHOD}+verify"]).rankings
    assert isinstance(verified, VerifiedStage)
    assert isinstance(verified.verifications.first, WeightedStage)


def test_what_cannot_be_weighed_is_refused_at_once(profile: Profile, ref: BenchmarkRef) -> None:
    assert "cirflow run train-weights" in why_not_ready(METHOD, profile)
    with pytest.raises(ValueError, match=r"query_weights\.cvsi=FOLDER"):
        plan_evaluation(profile, ref, [METHOD])
    values = {"root": profile.root, "spec_key": "0", "collections": ["cirr-val"], "count": 1}
    given = small_settings(Path(profile.root))
    for parameters, said in (
        ({"method": "ldre"}, "unknown method 'ldre'"),
        ({"families": ("cir",)}, "benchmark family 'cir'"),
        ({"training": {"temprature": 1}}, "temprature"),
    ):
        with pytest.raises(ValueError, match=said):
            train_weights(triplets=values, settings=given, **parameters)
    with pytest.raises(ValueError, match="the profile's root is"):
        train_weights(triplets={**values, "root": "/elsewhere"}, settings=given)


def test_a_search_weighs_a_persons_query_as_a_benchmarks(
    stage: WeightedStage, weighing: Profile, ref: BenchmarkRef
) -> None:
    from tasks.search_gallery import search_gallery

    stages = gallery_stages(weighing, ref.collection_name, METHOD)
    fill_all(list(stages.values()))
    query_set = load_query_set(weighing.root, ref.pinned(weighing.root))
    query = query_set.benchmark.queries[0]
    image = Path(query_set.benchmark.image_paths[query.reference]).read_bytes()
    asked = (weighing, ref.collection_name, stages, image, query.texts[0])
    found = search_gallery(*asked, method=METHOD, family="cirr", k=5)
    rows = stage.table().read(keys=stage.planned()).to_dicts()
    (row,) = (row for row in rows if row["query_id"] == query.query_id)
    ids = [query_set.image_ids[name] for name in row["names"][:5]]
    assert [hit.image_id for hit in found.hits] == ids
    np.testing.assert_allclose([hit.score for hit in found.hits], row["scores"][:5], atol=1e-4)

    quick = weighing.changed(search=weighing.search.changed(approximate_above=1))
    with pytest.raises(ValueError, match="search exactly"):
        search_gallery(quick, *asked[1:], method=METHOD, family="cirr")
