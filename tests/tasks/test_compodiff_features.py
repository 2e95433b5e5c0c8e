"""CompoDiff's query features and labels, judged by the denoiser used directly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedded_world.benchmarks import WorldSize, write_world
from flows.profiles import resolve_profile
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.methods import label_of, runnable_methods, why_not_ready
from tasks.planner import plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder
from tasks.scoring.making import made_by
from tasks.settings import Profile
from tasks.stages.query_features import QueryFeatureStage
from tasks.stages.rankings import ranking_protocol
from tests.fakes.drawn import small_settings
from tests.fakes.filled_tables import fill

SIZE = WorldSize(subsets=4, circo_queries=4, fashion_queries=2, distractors=8)


def write_denoiser(folder: Path, repository: Path, provenance: dict[str, object]) -> None:
    """A random denoiser over the shipped CLIP's features, in our own form."""
    import torch

    from models.compodiff.checkpoint import denoiser_files
    from models.compodiff.network import Denoiser, DenoiserShape
    from models.compodiff.settings import DenoiserSettings
    from models.encoders.facts import encoder_facts
    from models.encoders.spec import EncoderSpec

    torch.manual_seed(0)
    denoiser = Denoiser(DenoiserShape(128, 128, 1, 2, 8, 0))
    base = encoder_facts(EncoderSpec(name=str(repository / "models/embedded/clip"))).fingerprint
    settings = DenoiserSettings(depth=1, heads=2, head_width=8)
    folder.mkdir()
    for name, content in denoiser_files(denoiser, settings, base, provenance).items():  # type: ignore[arg-type]
        (folder / name).write_bytes(content)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    folder = tmp_path_factory.mktemp("compodiff")
    write_world(folder / "world", SIZE, seed=61)
    write_denoiser(folder / "own", repository, {"zero_shot": True, "summary": {"steps": 7}})
    supervised = {"zero_shot": False, "zero_shot_reason": "it saw CIRR's triplets"}
    write_denoiser(folder / "supervised", repository, supervised)
    return folder


def profile_of(folder: Path, **settings: object) -> Profile:
    own = small_settings(folder / "tables", captions=2, shard=128)
    return resolve_profile("tiny", own | settings)


@pytest.fixture(scope="module")
def profile(folder: Path) -> Profile:
    return profile_of(folder, **{"compodiff.checkpoint": str(folder / "own")})


def reference(folder: Path, profile: Profile, name: str) -> BenchmarkRef:
    ref = BenchmarkRef(name=name, root=str(folder / "world" / name))
    ingest(Location(profile.root), image_folder(ref.load()), ref.collection_name)
    return ref


@pytest.mark.parametrize("name", ["circo", "fashioniq"])
def test_a_querys_feature_is_the_denoisers(folder: Path, profile: Profile, name: str) -> None:
    """Each query alone, from its picture and its first reading; two guidances, two tables."""
    import torch

    from models.compodiff.checkpoint import load_denoiser
    from models.compodiff.encoder import CompoDiffEncoder
    from models.compodiff.token_states import BackboneStates
    from tasks.engines import load_encoder

    ref = reference(folder, profile, name)
    plan = plan_evaluation(profile, ref, ["compodiff"])
    (ranking,) = plan.rankings
    for stage in plan.upstream:
        fill(stage)
    stage = ranking.query_features["compodiff"]
    assert isinstance(stage, QueryFeatureStage)
    encoder = load_encoder(stage.encoder)
    texts = BackboneStates(encoder.tower)
    cpu = torch.device("cpu")
    denoiser = CompoDiffEncoder(load_denoiser(folder / "own"), texts, cpu)
    items = stage.queries.items(profile.root)
    benchmark = ref.load()
    pictures = {
        (query.reference, query.texts[0]): Image.open(benchmark.image_paths[query.reference])
        for query in benchmark.queries
    }
    firsts = {text for _, text in pictures}
    assert {item.texts[0] for item in items.values()} == firsts
    for (_, text), picture in list(pictures.items())[:3]:
        feature = encoder.encode_images([picture])
        wanted = denoiser.queries(feature, [text], profile.compodiff.sampling)[0]
        found = stage.table().vectors(list(items))
        assert np.isclose(found, wanted, atol=2e-3 * abs(wanted).max()).all(axis=1).any()
    weaker = profile_of(
        folder,
        **{"compodiff.checkpoint": str(folder / "own"), "compodiff.sampling.text_guidance": 1},
    )
    other = plan_evaluation(weaker, ref, ["compodiff", "image-only"]).rankings
    assert other[0].query_features["compodiff"].spec_key != stage.spec_key


def test_results_say_what_the_denoiser_saw(folder: Path, profile: Profile) -> None:
    ref = reference(folder, profile, "circo")
    supervised = profile_of(folder, **{"compodiff.checkpoint": str(folder / "supervised")})
    assert label_of("compodiff", profile) == ""
    assert "it saw CIRR's triplets" in label_of("compodiff", supervised)
    for chosen, zero_shot in ((profile, True), (supervised, False)):
        (ranking,) = plan_evaluation(chosen, ref, ["compodiff"]).rankings
        protocol = ranking_protocol(ranking)
        assert protocol["zero_shot"] is zero_shot
        assert protocol["compodiff"] == chosen.compodiff.sampling.model_dump()
    (ranking,) = plan_evaluation(profile, ref, ["compodiff"]).rankings
    made = made_by(ranking)
    assert made["trained_on"] == "7 steps"
    assert "text_guidance 2" in made["sampled"]
    assert len(made["denoiser"]) == 8


def test_the_method_runs_where_a_denoiser_of_the_backbone_is_named(
    folder: Path, profile: Profile
) -> None:
    bare = profile_of(folder)
    assert "compodiff" in runnable_methods(profile)
    assert "compodiff" not in runnable_methods(bare)
    assert "compodiff.checkpoint=FOLDER" in why_not_ready("compodiff", bare)
    lost = profile_of(folder, **{"compodiff.checkpoint": str(folder / "nowhere")})
    assert "holds no denoiser" in why_not_ready("compodiff", lost)
    broken = profile_of(folder, **{"compodiff.checkpoint": str(folder / "world/circo")})
    assert "holds no denoiser" in why_not_ready("compodiff", broken)
