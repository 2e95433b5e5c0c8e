"""Results that owe something to a benchmark's annotated texts say so, by any way these came in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from embedded_world.benchmarks import WorldSize, write_world
from flows.profiles import resolve_profile
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.methods import label_of
from tasks.planner import plan_evaluation
from tasks.profile_stages import word_stages
from tasks.query_sets import BenchmarkRef, image_folder
from tasks.settings import Profile
from tasks.stages.concepts import usable_concepts
from tasks.stages.rankings import RankingStage, ranking_protocol
from tests.fakes.drawn import small_settings

SIZE = WorldSize(subsets=2, circo_queries=2, fashion_queries=2, distractors=4)
SAW = "the text generator was tuned on annotated texts of cirr"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """A world, a text generator that saw annotations, and a mapping network of one."""
    folder = tmp_path_factory.mktemp("labels")
    write_world(folder / "world", SIZE, seed=11)
    ref = reference(folder)
    ingest(Location(str(folder / "tables")), image_folder(ref.load()), ref.collection_name)
    embedded = repository / "models/embedded"
    shutil.copytree(embedded / "llama", folder / "llama")
    card = {
        **dict.fromkeys(("base", "base_weights_sha256", "prompt_sha256", "data_sha256"), "x"),
        **{"form": "raw", "saw_benchmark_texts": ["cirr"], "merged": True},
    }
    (folder / "llama" / "cirflow.json").write_text(json.dumps(card))
    shutil.copytree(embedded / "lincir", folder / "searle.v2")
    config = json.loads((folder / "searle.v2" / "config.json").read_text())
    config["recipe"] |= {"zero_shot": False, "zero_shot_reason": SAW}
    (folder / "searle.v2" / "config.json").write_text(json.dumps(config))
    return folder


def reference(folder: Path) -> BenchmarkRef:
    return BenchmarkRef(name="circo", root=str(folder / "world" / "circo"))


def profile(folder: Path, **changes: str) -> Profile:
    own = {name.replace("_", ".", 1): value for name, value in changes.items()}
    return resolve_profile("tiny", small_settings(folder / "tables") | own)


def ranking(own: Profile, folder: Path, method: str) -> RankingStage:
    (stage,) = plan_evaluation(own, reference(folder), [method]).rankings
    return stage


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("cirevl", {"generator_model": "llama"}),
        ("cvsi", {"generator_model": "llama"}),
        ("searle-oti", {"generator_model": "llama", "inversion_phrases": ""}),
        ("searle", {"mapping_searle": "searle.v2"}),
    ],
)
def test_a_row_is_labelled_by_what_its_texts_and_tokens_owe(
    folder: Path, method: str, settings: dict[str, str]
) -> None:
    places = {name: str(folder / value) if value else "" for name, value in settings.items()}
    own = profile(folder, **places)
    stage = ranking(own, folder, method)
    protocol = ranking_protocol(stage)
    assert (protocol["zero_shot"], protocol["zero_shot_reason"]) == (False, SAW)
    assert stage.spec["zero_shot_reason"] == SAW  # another row of the ledger
    assert SAW in label_of(method, own)


@pytest.mark.parametrize("method", ["cirevl", "searle-oti", "lincir", "text-only"])
def test_a_row_of_others_is_not(folder: Path, method: str) -> None:
    own = profile(folder, generator_model=str(folder / "llama"))
    own = own if method in ("text-only", "lincir") else profile(folder)
    stage = ranking(own, folder, method)
    assert ranking_protocol(stage)["zero_shot"] is True
    assert not {name for name in stage.spec if "zero_shot" in name}
    assert label_of(method, own) == ""


def test_the_order_of_a_vocabulary_changes_nothing(folder: Path, tmp_path: Path) -> None:
    """Identities name the concepts as a set."""
    names = ["star", "cat", "Cat", "circle"]
    phrases = {name: (f"a photo of {name} that",) for name in names}
    found, keys = [], set()
    for number, order in enumerate((names, names[::-1])):
        file = tmp_path / f"{number}.txt"
        file.write_text("\n".join(order))
        own = profile(folder, inversion_concepts=str(file))
        vectors, _ = word_stages(own, own.query_encoder)
        found.append(usable_concepts(vectors, phrases))
        keys.add(vectors.spec_key)
    assert found[0] == found[1] == ["Cat", "cat", "circle", "star"]
    assert len(keys) == 1
