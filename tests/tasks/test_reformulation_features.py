"""InstructCIR's features, rankings and labels, judged by the encoder itself and by plain sums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from embedded_world.benchmarks import WorldSize, write_world
from flows.profiles import resolve_profile
from storage.benchmarks.records import Query
from storage.benchmarks.registry import benchmark_facts
from storage.collections.collection import ingest
from storage.locations.location import Location
from storage.tables.keys import content_key
from tasks import networks
from tasks.methods import label_of, runnable_methods, why_not_ready
from tasks.networks import network_facts, network_problem, why_not_zero_shot
from tasks.planner import gallery_stages, plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder
from tasks.scoring.ledger import not_zero_shot, read_ledger
from tasks.scoring.published import published_for
from tasks.scoring.scores import record_scores, score_ranking
from tasks.scoring.sweeps import grid_points, sweep_shares
from tasks.settings import Profile
from tasks.stages.rankings import RankingStage, backbone_of, ranking_protocol
from tasks.stages.reformulation_features import ReformulatedImageStage, ReformulatedQueryStage
from tasks.stages.stage import Stage
from tests.fakes.drawn import small_settings
from tests.fakes.filled_tables import fill

SIZE = WorldSize(subsets=4, circo_queries=5, fashion_queries=2, distractors=12)
NETWORK_METHODS = ("instructcir", "instructcir-no-combiner", "instructcir-ema")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world, a network and tables."""
    from tests.fakes.networks import write_network

    folder = tmp_path_factory.mktemp("reformulation")
    write_world(folder / "world", SIZE, seed=61)
    write_network(folder / "network")
    return folder


@pytest.fixture(scope="module")
def profile(folder: Path) -> Profile:
    """The tiny profile with that network, whose world is ingested."""
    settings = small_settings(folder / "tables", captions=2, shard=128)
    profile = resolve_profile(
        "tiny", settings | {"instructcir.checkpoint": str(folder / "network")}
    )
    for name in ("circo", "fashioniq"):
        place = reference(folder, name)
        ingest(Location(profile.root), image_folder(place.load()), place.collection_name)
    return profile


def reference(folder: Path, name: str) -> BenchmarkRef:
    return BenchmarkRef(name=name, root=str(folder / "world" / name))


def ranked(profile: Profile, ref: BenchmarkRef, methods: Sequence[str]) -> list[RankingStage]:
    """Rankings of some methods with everything that they read."""
    plan = plan_evaluation(profile, ref, methods)
    for stage in (*plan.upstream, *plan.rankings):
        fill(stage)
    return list(plan.rankings)


def direct(folder: Path, ref: BenchmarkRef, query: Query) -> dict[str, np.ndarray]:
    """One query by the encoder itself, and equation 3 written out."""
    from models.instructcir.checkpoint import load_network
    from models.instructcir.encoder import ReformulationEncoder

    image = Image.open(ref.load().image_paths[query.reference])
    loaded = load_network(folder / "network")
    made: dict[str, np.ndarray] = {}
    for branch in ("online", "ema"):
        z, text, _ = ReformulationEncoder(loaded, branch, device="cpu").encode_queries(
            [image], [query.texts[0]]
        )
        share = 1 / (1 + np.exp(-0.5))
        mixed = share * n(z[0]) + (1 - share) * n(text[0])
        made |= {branch: z[0], f"{branch} combined": n(mixed)}
    return made


def n(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def sha(ref: BenchmarkRef, name: str) -> str:
    return hashlib.sha256(Path(ref.load().image_paths[name]).read_bytes()).hexdigest()


def stored(profile: Profile, stage: Stage, key: str) -> np.ndarray:
    """One vector of a stage's table as it lies on disk."""
    rows = pl.read_parquet(f"{profile.root}/{stage.table().folder}/part-*.parquet")
    assert rows["status"].unique().to_list() == ["ok"]
    return rows.filter(pl.col(rows.columns[0]) == key)["vector"].to_numpy()[0]


@pytest.mark.parametrize("name", ["circo", "fashioniq"])
def test_features_are_those_of_the_encoder_used_directly(
    folder: Path, profile: Profile, name: str
) -> None:
    from models.instructcir.checkpoint import load_network
    from models.instructcir.encoder import ReformulationEncoder

    ref = reference(folder, name)
    stages = {stage.method: stage for stage in ranked(profile, ref, NETWORK_METHODS)}
    forms = dict(zip(NETWORK_METHODS, ("online combined", "online", "ema combined"), strict=True))
    for query in ref.load().queries[:3]:
        key = content_key({"image": sha(ref, query.reference), "texts": list(query.texts)})
        expected = direct(folder, ref, query)
        for method, form in forms.items():
            (feature,) = stages[method].query_features.values()
            np.testing.assert_allclose(
                stored(profile, feature, key), expected[form], rtol=1e-4, atol=1e-5
            )
    assert not np.allclose(expected["online"], expected["ema"], atol=1e-2)
    encoder = ReformulationEncoder(load_network(folder / "network"), "ema", device="cpu")
    (gallery,) = stages["instructcir"].gallery_features.values()
    for image in next(iter(ref.load().galleries.values()))[:3]:
        alone = encoder.encode_gallery([Image.open(ref.load().image_paths[image])])[0]
        np.testing.assert_allclose(
            stored(profile, gallery, sha(ref, image)), alone, rtol=1e-4, atol=1e-5
        )


def test_a_gallery_of_its_own_shares_the_rows_of_the_benchmark(
    folder: Path, profile: Profile
) -> None:
    ref = reference(folder, "circo")
    (stage,) = ranked(profile, ref, ["instructcir"])
    (own,) = gallery_stages(profile, ref.collection_name, "instructcir").values()
    assert isinstance(own, ReformulatedImageStage)
    assert own.spec_key == stage.gallery_features["instructcir_image"].spec_key


def test_a_finished_evaluation_loads_no_network(
    folder: Path, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.instructcir import checkpoint as checkpoint_module

    ref = reference(folder, "circo")
    first = [record.spec_key for record in ranked(profile, ref, NETWORK_METHODS)]

    def refused(folder: object) -> None:
        raise AssertionError("a finished run read weights")

    networks._loaded.cache_clear()
    monkeypatch.setattr(checkpoint_module, "load_network", refused)
    plan = plan_evaluation(profile, ref, NETWORK_METHODS)
    for stage in (*plan.upstream, *plan.rankings):
        assert stage.table().plan(stage.planned(), stage.shard_size).shards == ()
    assert [stage.spec_key for stage in plan.rankings] == first
    for stage in plan.rankings:
        assert score_ranking(stage, resamples=2).queries == 5
        assert backbone_of(stage)


def test_only_what_the_network_is_asked_for_differently_is_made_twice(
    folder: Path, profile: Profile, tmp_path: Path
) -> None:
    """Without a combiner two rows are one; another branch or precision is another table."""
    from tests.fakes.networks import write_network

    ref = reference(folder, "circo")
    plain = write_network(tmp_path / "plain", combiner=False)

    def keys(profile: Profile) -> list[str]:
        plan = plan_evaluation(profile, ref, NETWORK_METHODS)
        return [next(iter(s.query_features.values())).spec_key for s in plan.rankings]

    assert len(set(keys(profile))) == 3
    bare = profile.model_copy(
        update={"instructcir": profile.instructcir.model_copy(update={"checkpoint": str(plain)})}
    )
    without = keys(bare)
    assert without[0] == without[1] != without[2]
    half = resolve_profile(
        "tiny",
        {
            "root": profile.root,
            "instructcir.checkpoint": str(plain),
            "encoder.dtype": "bf16",
        },
    )
    assert not set(keys(half)) & set(without)


# --------------------------------------------------------------------------- fusion of two spaces


@pytest.fixture(scope="module")
def fused(folder: Path, profile: Profile) -> list[RankingStage]:
    """CVSI, InstructCIR and both, ranked."""
    return ranked(profile, reference(folder, "circo"), ["cvsi", "instructcir", "cvsi-instructcir"])


def similarities(profile: Profile, stage: RankingStage, query: Query) -> dict[str, float]:
    """Image name -> similarity of a weighted-sum method, from its features on disk."""
    ref = stage.benchmark
    key = content_key({"image": sha(ref, query.reference), "texts": list(query.texts)})
    parts = [
        weight * n(stored(profile, stage.query_features[name], key).astype(np.float64))
        for name, weight in stage.recipe.query.items()
    ]
    q = n(np.sum(parts, axis=0))
    found = {}
    for image in ref.load().galleries[""]:
        parts = [
            weight * n(stored(profile, stage.gallery_features[name], sha(ref, image)))
            for name, weight in stage.recipe.gallery.items()
        ]
        found[image] = float(q @ n(np.sum(parts, axis=0)))
    return found


def naive_order(profile: Profile, fused: list[RankingStage], query: Query, w: float) -> list[str]:
    cvsi, trained = (similarities(profile, stage, query) for stage in fused[:2])
    scores = {image: (1 - w) * cvsi[image] + w * trained[image] for image in cvsi}
    return sorted(scores, key=lambda image: -scores[image])


def test_the_fusion_ranks_by_the_weighted_sum_of_both_cosines(
    profile: Profile, fused: list[RankingStage]
) -> None:
    both = fused[2]
    rows = pl.read_parquet(f"{profile.root}/{both.table().folder}/part-*.parquet")
    query = both.benchmark.load().queries[0]
    row = rows.filter(pl.col("query_id") == query.query_id).to_dicts()[0]
    cvsi, trained = (similarities(profile, stage, query) for stage in fused[:2])
    share = profile.instructcir.weights["circo"]
    sums = {image: (1 - share) * cvsi[image] + share * trained[image] for image in cvsi}
    assert row["scores"] == pytest.approx([sums[name] for name in row["names"]], abs=1e-5)
    assert row["scores"] == sorted(row["scores"], reverse=True)
    assert row["names"][0] == max(sums, key=lambda image: sums[image])


def test_a_weight_of_the_profile_makes_another_ranking(folder: Path, profile: Profile) -> None:
    ref = reference(folder, "circo")
    weights = {"cirr": 0.5, "circo": 1.0, "fashioniq": 0.5}
    other = profile.model_copy(
        update={"instructcir": profile.instructcir.model_copy(update={"weights": weights})}
    )
    keys = {
        plan_evaluation(each, ref, ["cvsi-instructcir"]).rankings[0].spec_key
        for each in (profile, other)
    }
    assert len(keys) == 2
    plan = plan_evaluation(other, ref, ["cvsi-instructcir"])  # nothing of CVSI is made
    assert {type(s) for s in plan.upstream} == {ReformulatedImageStage, ReformulatedQueryStage}


def test_the_sweep_scores_what_a_ranking_with_that_weight_would(
    profile: Profile, fused: list[RankingStage]
) -> None:
    results = {row["weight"]: row for row in sweep_shares(fused[2], grid_points(0.25))}
    assert sorted(results) == [0.0, 0.25, 0.5, 0.75, 1.0]
    main = benchmark_facts("circo").metrics.main
    for weight, stage in ((0.0, fused[0]), (1.0, fused[1]), (0.5, fused[2])):
        scored = score_ranking(stage, resamples=2).metrics[main]
        assert results[weight][main] == pytest.approx(scored, abs=1e-3)
    benchmark = fused[2].benchmark.load()
    precisions = []
    for query in benchmark.queries:
        hits, total = 0, 0.0
        order = naive_order(profile, fused, query, 0.25)[:10]
        for place, image in enumerate(order, 1):
            if image in query.targets:
                hits += 1
                total += hits / place
        precisions.append(total / min(10, len(query.targets)))
    assert results[0.25][main] == pytest.approx(100 * np.mean(precisions), abs=1e-3)
    with pytest.raises(ValueError, match="cvsi is not a late fusion"):
        sweep_shares(fused[0], [0.5])
    with pytest.raises(ValueError, match="step must divide 1"):
        grid_points(0.3)


# --------------------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("provenance", "said"),
    [
        ({"zero_shot": True}, ""),
        ({"zero_shot": False, "zero_shot_reason": "trained on CIRR"}, "trained on CIRR"),
        ({"zero_shot": False}, "its own record says so"),
        ({}, "its record does not say what it was trained on"),
        (
            {"zero_shot": True, "triplets": [{"rewriter": {"saw_benchmark_texts": ["CIRR", "X"]}}]},
            "annotated texts of CIRR and X were among its training data",
        ),
        ({"zero_shot": True, "rewriter": {"saw_benchmark_texts": []}}, ""),
    ],
)
def test_what_a_network_saw_decides_its_label(provenance: dict[str, object], said: str) -> None:
    assert why_not_zero_shot(provenance) == said


def test_the_label_is_in_protocol_ledger_and_method_table(
    folder: Path, profile: Profile, tmp_path: Path
) -> None:
    from tests.fakes.networks import write_network

    record = {"zero_shot": False, "zero_shot_reason": "trained on CIRR"}
    tuned = write_network(tmp_path / "tuned", record)
    values = {"root": profile.root, "instructcir.checkpoint": str(tuned)}
    chosen = resolve_profile("tiny", values)
    ref = reference(folder, "circo")
    label = "not zero-shot: trained on CIRR"
    stages = ranked(chosen, ref, ["text-only", "instructcir-no-combiner"])
    for stage in stages:
        record_scores([(stage, score_ranking(stage, resamples=2))])
    labels = {e["method"]: not_zero_shot(e["protocol"]) for e in read_ledger(chosen.root)}
    assert labels == {"text-only": "", "instructcir-no-combiner": label}
    said = json.loads(json.dumps(ranking_protocol(stages[1])))
    assert said["instructcir"]["branch"] == "online"
    assert said["instructcir"]["combiner"] == ""
    assert said["instructcir"]["preprocess"]["mode"] == "clip"
    assert label_of("cvsi-instructcir", chosen) == label
    assert label_of("cvsi", chosen) == label_of("instructcir", profile) == ""
    (feature,) = stages[1].query_features.values()
    assert isinstance(feature, ReformulatedQueryStage)
    backbone = network_facts(feature.network.checkpoint).backbone
    assert [backbone_of(stage) for stage in stages] == [backbone, f"{backbone} + reformulation"]
    assert backbone.startswith("local ")


@pytest.mark.parametrize(
    ("name", "split", "metric", "value", "source"),
    [
        # And not LAION's or Table IV's.
        ("cirr", "test1", "recall@1", 39.28, "Fashion200k/NLVR-300k"),
        ("circo", "test", "map@10", 13.84, "ViT-L/14"),
        ("fashioniq", "val", "recall@10/average", 37.32, "Fashion200k/NLVR-300k"),
    ],
)
def test_the_papers_main_zero_shot_row_stands_beside_ours(
    name: str, split: str, metric: str, value: float, source: str
) -> None:
    published = published_for(name, split, "instructcir", "ViT-L-14 openai", drawn=False)
    assert published is not None
    row = published.result
    assert (row.metrics[metric], row.supervised) == (value, False)
    assert source in (row.backbone, row.note)


def test_methods_run_where_the_profile_names_a_network(profile: Profile, tmp_path: Path) -> None:
    assert {*NETWORK_METHODS, "cvsi-instructcir"} <= set(runnable_methods(profile))
    assert why_not_ready("searle", profile).startswith("no checkpoint ships")
    named = resolve_profile("tiny", {"mapping.searle": "phi.pt"})
    assert why_not_ready("searle", named) == ""
    nothing = resolve_profile("production")
    assert not {*NETWORK_METHODS, "cvsi-instructcir"} & set(runnable_methods(nothing))
    for said in (why_not_ready("cvsi-instructcir", nothing), network_problem(str(tmp_path))):
        assert "cirflow run train-reformulation" in said
        assert "instructcir.checkpoint=FOLDER" in said
    with pytest.raises(ValueError, match="no reformulation network is named"):
        gallery_stages(nothing, "any", "instructcir")
