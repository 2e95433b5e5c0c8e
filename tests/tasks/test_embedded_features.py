"""The method composed-embedding on a drawn world: vectors by the model itself, identities, rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from embedded_world.benchmarks import WorldSize, write_world
from flows.forms import Backbone
from flows.profiles import ProfileError, resolve_profile
from models.embedders.chat_embedder import ChatEmbedderSettings
from models.embedders.clip_embedder import ClipEmbedderSettings
from models.embedders.protocol import ComposedQuery
from models.retrieval.method_records import LateFusion
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.methods import label_of, runnable_methods, why_not_ready
from tasks.planner import gallery_stages, plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder
from tasks.scoring.making import made_by
from tasks.settings import Profile
from tasks.stages.rankings import backbone_of, ranking_protocol
from tasks.stages.stage import in_order
from tests.fakes.drawn import small_settings
from tests.fakes.embedders import save_clip
from tests.fakes.filled_tables import fill

SIZE = WorldSize(subsets=2, circo_queries=2, fashion_queries=2, distractors=6)
METHOD = "composed-embedding"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world and a CLIP with random weights."""
    folder = tmp_path_factory.mktemp("embedded")
    write_world(folder / "world", SIZE, seed=72)
    save_clip(folder / "embedder")
    return folder


def profile_of(folder: Path, **changes: Any) -> Profile:
    own = {"embedder.engine": "clip-embedder", "embedder.model": str(folder / "embedder")}
    return resolve_profile("tiny", small_settings(folder / "tables") | own | changes)


def test_queries_and_gallery_are_the_models_own(folder: Path) -> None:
    profile = profile_of(folder)
    ref = BenchmarkRef(name="cirr", root=str(folder / "world" / "cirr"))
    ingest(Location(profile.root), image_folder(ref.load()), ref.collection_name)
    (ranking,) = plan_evaluation(profile, ref, [METHOD]).rankings
    assert all(fill(stage) for stage in in_order([ranking]))
    assert not any(fill(stage) for stage in in_order([ranking]))  # all of it is there
    benchmark, embedder = ref.load(), profile.embedder.load()
    items = ranking.query_features["composed_embedding"].queries.items(profile.root)
    found = ranking.query_features["composed_embedding"].table().vectors(list(items))
    for query in benchmark.queries[:3]:
        picture = Image.open(benchmark.image_paths[query.reference]).convert("RGB")
        wanted = embedder.encode_composed([ComposedQuery((picture,), query.texts[0])], "").vectors
        assert np.isclose(found, wanted, atol=1e-4).all(axis=1).any()
    protocol, made = ranking_protocol(ranking), made_by(ranking)
    assert protocol["zero_shot"] is True
    assert label_of(METHOD, profile) == ""
    assert backbone_of(ranking).startswith("local-")
    assert made["embedder"].startswith("transformers-clip-embedder local-")


def test_an_instruction_makes_queries_alone_and_weights_rankings_alone(folder: Path) -> None:
    """Of a server: its identity needs no files."""
    server = {
        **{"embedder.engine": "openai-embedder", "embedder.model": "served"},
        **{"embedder.width": 8, "embedder.base_url": "http://127.0.0.1:9/v1"},
    }
    ref = BenchmarkRef(name="circo", root=str(folder / "world" / "circo"))
    ingest(Location(profile_of(folder).root), image_folder(ref.load()), ref.collection_name)

    def keys(**changes: Any) -> tuple[str, str]:
        (own,) = plan_evaluation(profile_of(folder, **server | changes), ref, [METHOD]).rankings
        return (
            own.query_features["composed_embedding"].spec_key,
            own.gallery_features["embedded_image"].spec_key,
        )

    plain, told = keys(), keys(**{"embedder.instruction": "Find it"})
    assert (plain[0] != told[0], plain[1]) == (True, told[1])
    assert keys(**{"embedder.base_url": "http://127.0.0.1:7/v1"}) == plain
    other = keys(**{"embedder.form.preset": "gme"})
    assert (other[0] != plain[0], other[1] != plain[1]) == (True, True)
    chosen = profile_of(folder, **server, **{"embedding_weights.circo": 0.25})
    (both,) = plan_evaluation(chosen, ref, ["cvsi-composed-embedding"]).rankings
    assert isinstance(both.recipe, LateFusion)
    assert [weight for weight, _ in both.recipe.parts] == [0.75, 0.25]
    (earlier,) = plan_evaluation(chosen, ref, ["cvsi"]).rankings
    assert earlier.recipe == both.recipe.parts[0][1]


def test_a_picture_without_a_vector_is_a_row_with_its_reason(folder: Path, tmp_path: Path) -> None:
    profile = profile_of(folder, root=str(tmp_path / "tables"))
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "pictures" / "good.png")
    Image.new("RGB", (3000, 2), "red").save(tmp_path / "pictures" / "line.png")
    ingest(Location(profile.root), tmp_path / "pictures", "odd")
    stage = gallery_stages(profile, "odd", METHOD)["embedded_image"]
    assert fill(stage) == 2
    rows = stage.table().read(["status", "reason"])
    assert sorted(rows["status"]) == ["engine_error", "ok"]
    assert any("3000x2" in reason for reason in rows["reason"])


def test_where_none_is_named_the_setting_is_said(folder: Path) -> None:
    bare = profile_of(folder, **{"embedder.model": ""})
    for name in (METHOD, "cvsi-composed-embedding"):
        assert "embedder.model=FOLDER" in why_not_ready(name, bare)
        assert name not in runnable_methods(bare)
        assert name in runnable_methods(profile_of(folder))
    with pytest.raises(ProfileError, match=r"embedder\.engine.*'chat-embedder'"):
        profile_of(folder, **{"embedder.engine": "chat-embeder"})
    own = {"embedder.engine": "chat-embedder", "embedder.form.preset": "e5-v"}
    with pytest.raises(ProfileError, match=r"embedder\.form\.preset.*'vlm2vec'"):
        profile_of(folder, **own)


def test_a_backbone_in_the_form_names_an_embedding_model() -> None:
    chosen = Backbone(embedder="BAAI/BGE-VL-MLLM-S1", embedder_form="bge-vl-mllm")
    profile = resolve_profile("tiny", chosen.settings())
    assert isinstance(profile.embedder, ChatEmbedderSettings)
    assert profile.embedder.form.form.side == 512
    assert profile.encoder == resolve_profile("tiny").encoder
    assert chosen.title == "BGE-VL-MLLM-S1"
    added = Backbone(name="ViT-B-32", pretrained="openai", embedder="to/embedder")
    assert added.title == "ViT-B-32 openai & embedder"
    own = resolve_profile("production", added.changed(embedder_form="clip").settings())
    assert isinstance(own.embedder, ClipEmbedderSettings)
    assert own.embedder.model == "to/embedder"
    with pytest.raises(ValueError, match=r"'vlm2vec'.*'clip'"):
        Backbone.model_validate({"embedder": "x", "embedder_form": "e5-v"})


@pytest.mark.parametrize(
    ("name", "group"),
    [("cvsi-composed-embedding", "embedding"), ("cvsi-instructcir", "instructcir")],
)
def test_a_sweep_of_a_late_fusion_gives_both_methods_a_weight(name: str, group: str) -> None:
    """Of the fusion that is swept and of no other."""
    from flows.sweep_fusion import both_methods

    others = {"embedding_weights": {"cirr": 0.0}}
    profile = resolve_profile("tiny").changed(**others)
    own = profile.instructcir.changed(weights={"cirr": 0.0})
    profile = profile.changed(instructcir=own)
    made = both_methods(profile, name, "cirr")
    given = {"embedding": made.embedding_weights, "instructcir": made.instructcir.weights}
    assert {key: weights["cirr"] for key, weights in given.items()} == {
        key: 0.5 if key == group else 0.0 for key in given
    }
