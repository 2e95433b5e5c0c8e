"""A benchmark's train split as triplets: joined by content, held out by groups, always labelled."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random

import polars as pl
import pytest

from embedded_world.benchmarks import WorldSize
from embedded_world.scenes import is_held_out
from embedded_world.train_splits import write_train_splits
from flows.profiles import resolve_profile
from flows.requests.triplet_training import triplet_set_of
from storage.benchmarks.errors import BenchmarkError
from storage.collections.collection import ingest
from storage.locations.location import Location
from storage.tables.keys import sha256_hex
from tasks.methods import label_of
from tasks.networks import network_facts, why_not_zero_shot
from tasks.query_sets import BenchmarkRef
from tasks.settings import Profile
from tasks.training.annotated_triplets import annotated_triplets, order, parse_split
from tasks.training.triplet_sets import TripletSet, split_triplets

SIZE = WorldSize(subsets=12, fashion_queries=6, distractors=0, fashion_siblings=0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    write_train_splits(folder, SIZE, seed=4)
    root = Location(str(folder / "root"))
    ingest(root, folder / "cirr" / "train", "cirr-train")
    ingest(root, folder / "fashioniq" / "images", "fashioniq-train")
    return folder


def profile(world: Path, **settings: object) -> Profile:
    return resolve_profile("tiny", {"root": str(world / "root"), **settings})


def named(world: Path, benchmark: str) -> str:
    return f"{benchmark}:train:{world / benchmark}"


def found(world: Path, benchmark: str) -> TripletSet:
    return triplet_set_of(named(world, benchmark), profile(world))


def test_triplets_are_the_annotations_joined_by_the_images_bytes(world: Path) -> None:
    records = json.loads((world / "cirr" / "captions" / "cap.rc2.train.json").read_text())
    files = json.loads((world / "cirr" / "image_splits" / "split.rc2.train.json").read_text())

    def digest(name: str) -> str:
        return sha256_hex((world / "cirr" / files[name]).read_bytes())

    wanted = {(digest(r["reference"]), digest(r["target_hard"]), r["caption"]) for r in records}
    triplets = found(world, "cirr").triplets()
    assert {(t.reference, t.target, t.text) for t in triplets} == wanted
    assert len(triplets) == len(records) == 24
    assert {t.source for t in triplets} == {"cirr-train"}


def test_fashioniq_reads_its_captions_in_the_protocols_order(world: Path) -> None:
    texts = set()
    for path in (world / "fashioniq" / "captions").glob("cap.*.train.json"):
        texts |= {" and ".join(record["captions"]) for record in json.loads(path.read_text())}
    triplets = found(world, "fashioniq").triplets()
    assert {t.text for t in triplets} == texts
    assert len({t.meta_class for t in triplets}) == 3


def test_a_text_is_drawn_from_both_captions_where_training_asks_for_it(world: Path) -> None:
    """CLIP4CIR's four readings, each a quarter of the time, the same ones when asked again."""
    import numpy as np
    import torch

    from models.instructcir.training_settings import ReformulationTraining
    from models.training.batches import Batch
    from models.training.settings import ComposedTraining, TripletTraining
    from models.training.triplet_batches import TripletBatches, TripletRows

    class Blank:
        def get(self, image_ids: Sequence[str]) -> list[np.ndarray]:
            return [np.zeros((2, 2, 3), np.uint8)] * len(image_ids)

    read: list[str] = []

    def tokenised(texts: Sequence[str]) -> Batch:
        read.extend(texts)
        return {"texts": torch.zeros(len(texts), 1)}

    def texts_of(
        benchmark: str, captions: str, kind: type[TripletTraining] = ComposedTraining
    ) -> list[str]:
        rows = TripletRows(found(world, benchmark).triplets()[:8], tokenised)
        training = kind.model_validate({"batch_size": 8, "epochs": 100, "captions": captions})
        batches = TripletBatches(rows, Blank(), training, size=(2, 2))
        read.clear()
        for number in range(100):
            batches[number]
        return list(read)

    drawn = texts_of("fashioniq", "drawn")
    assert drawn == texts_of("fashioniq", "drawn")
    assert drawn == texts_of("fashioniq", "drawn", ReformulationTraining)
    assert "captions" not in ReformulationTraining().model_dump()
    assert ReformulationTraining(captions="drawn").model_dump()["captions"] == "drawn"
    joined = {t.text for t in found(world, "fashioniq").triplets()[:8]}
    assert set(texts_of("fashioniq", "joined")) == joined
    forms = dict.fromkeys(range(4), 0)
    pairs = [tuple(text.split(" and ")) for text in joined]
    for text in drawn:
        places = [
            [f"{a} and {b}", f"{b} and {a}", a, b].index(text)
            for a, b in pairs
            if text in (f"{a} and {b}", f"{b} and {a}", a, b)
        ]
        forms[places[0]] += 1
    assert sum(forms.values()) == 800
    assert all(130 < count < 270 for count in forms.values()), forms
    own = {t.text for t in found(world, "cirr").triplets()[:8]}
    assert set(texts_of("cirr", "drawn")) == own


def test_the_same_split_again_makes_nothing(world: Path) -> None:
    first = found(world, "cirr")
    parts = first.table().parts()
    assert found(world, "cirr") == first
    assert first.table().parts() == parts


def test_everything_that_is_trained_on_it_is_labelled(world: Path) -> None:
    for benchmark in ("cirr", "fashioniq"):
        spec = dict(found(world, benchmark).table().spec)
        reason = why_not_zero_shot({"zero_shot": True, "triplets_spec": spec})
        assert reason == f"annotated texts of {benchmark} were among its training data"


def chained(count: int) -> list[tuple[str, str]]:
    """One long chain of images, as most of CIRR is, and `count` pairs that stand alone."""
    chain = [(f"c{n}", f"c{n + 1}") for n in range(9 * count)]
    pairs = [*chain, *((f"a{n}", f"b{n}") for n in range(count))]
    Random(0).shuffle(pairs)
    return pairs


def test_small_groups_stand_in_front_whole_and_the_rest_is_mixed() -> None:
    pairs = chained(200)
    places = order(pairs, [""] * len(pairs))
    assert sorted(places) == list(range(2000))
    front = [pairs[place] for place in places[:200]]
    assert all(reference.startswith("a") for reference, _ in front)
    rest = [int(pairs[place][0][1:]) for place in places[200:]]
    neighbours = sum(abs(a - b) == 1 for a, b in itertools.pairwise(rest))
    assert neighbours < 20  # of 1,799 in the annotations' order
    turned = pairs[::-1]
    again = [turned[place] for place in order(turned, [""] * len(turned))]
    assert again == [pairs[place] for place in places]


def test_holding_out_costs_no_triplet_that_is_not_held_out(world: Path) -> None:
    triplets = found(world, "cirr").triplets()
    split = split_triplets(triplets, len(triplets) // 10)
    assert len(split.validation) == 2
    assert split.left_out == 0


def test_a_real_split_keeps_almost_all_for_training(shared_data: Path) -> None:
    """CIRR's annotations are mostly one chain of images; without images names stand for them."""
    path = shared_data / "annotations" / "cirr" / "captions" / "cap.rc2.val.json"
    records = json.loads(path.read_text())
    pairs = [(record["reference"], record["target_hard"]) for record in records]
    places = order(pairs, [record["caption"] for record in records])
    held = {image for place in places[:400] for image in pairs[place]}
    left_out = [place for place in places[400:] if held & set(pairs[place])]
    naive = {image for pair in pairs[:400] for image in pair}
    assert len(left_out) < 50
    assert len(left_out) < len([pair for pair in pairs[400:] if naive & set(pair)])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("cirr:val:x", "unknown split of cirr to train on 'val'"),
        ("cirr:test1:x", "train"),
        ("circo:train:x", "circo has no split to train on"),
        ("fashioniq:trian:x", "did you mean 'train'"),
        ("cirrr:train:x", "did you mean 'cirr'"),
    ],
)
def test_only_splits_to_train_on_are_taken(given: str, said: str) -> None:
    with pytest.raises(BenchmarkError, match=said):
        parse_split(given)
    assert parse_split("triplets.json") is None
    assert parse_split("C:\\data\\cirr:train") is None


def test_what_is_missing_is_said(world: Path, tmp_path: Path) -> None:
    empty = profile(world).model_copy(update={"root": str(tmp_path)})
    with pytest.raises(ValueError, match=r"cirflow ingest .*train --name cirr-train"):
        triplet_set_of(named(world, "cirr"), empty)
    with pytest.raises(ValueError, match=r"no such file; .* BENCHMARK:train:FOLDER"):
        triplet_set_of("nothing.json", empty)

    ref = BenchmarkRef(name="cirr", root=str(world / "cirr"), split="train", allow_missing=True)
    images = sorted((world / "cirr" / "train").iterdir())
    root = str(tmp_path / "gaps")
    kept = tmp_path / "kept"
    kept.mkdir()
    for image in images[:30]:
        (kept / image.name).write_bytes(image.read_bytes())
    ingest(Location(root), kept, "cirr-train")
    with pytest.raises(ValueError, match=r"triplets of cirr train cannot be used, first"):
        annotated_triplets(root, ref)


def test_gaps_are_rows_that_say_so(world: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(world / "cirr", tmp_path / "cirr")
    records = json.loads((copied / "captions" / "cap.rc2.train.json").read_text())
    gone = records[0]["reference"]
    (copied / "train" / f"{gone}.png").unlink()
    ref = BenchmarkRef(name="cirr", root=str(copied), split="train", allow_missing=True)
    ingest(Location(str(tmp_path / "root")), copied / "train", "cirr-train")
    kept = annotated_triplets(str(tmp_path / "root"), ref, allow_missing=True)
    lost = [r for r in records if gone in (r["reference"], r["target_hard"])]
    assert len(kept.triplets()) == len(records) - len(lost) < kept.count == len(records)
    rows = kept.table().read(["status", "reason"]).filter(pl.col("status") != "ok")
    assert set(rows["status"]) == {"missing_input"}
    assert all(reason.startswith(f"{gone} ") for reason in rows["reason"])


def test_scenes_are_those_of_training(world: Path) -> None:
    from embedded_world.benchmarks import cirr_split, fashion_split
    from embedded_world.scenes import THEMES

    galleries = [cirr_split("train", SIZE.subsets, 4)[0]]
    galleries += [fashion_split("train", category, SIZE, 4)[0] for category in THEMES]
    scenes = [scene for gallery in galleries for scene in gallery.scenes.values()]
    assert len(scenes) > 100
    assert not any(map(is_held_out, scenes))


def test_a_network_that_is_trained_on_it_says_so_wherever_it_is_shown(
    world: Path, tmp_path: Path
) -> None:
    from tasks.training.instructcir import train_reformulation_network
    from tasks.training.run_settings import RunSettings
    from tests.fakes.triplet_tables import small_job

    job = small_job(str(tmp_path), found(world, "cirr"), training={"max_steps": 2})
    train_reformulation_network.fn(job, RunSettings(accelerator="cpu", loggers=()), {})
    facts = network_facts(job.place)
    assert not facts.zero_shot
    assert "texts by the annotators of cirr train" in facts.trained_on
    label = "annotated texts of cirr were among its training data"
    card = Path(job.place, "README.md").read_text()
    assert f"**Not zero-shot**: {label}" in card
    assert "the annotators of cirr train" in card
    own = profile(world, **{"instructcir.checkpoint": job.place})
    assert label_of("instructcir", own) == f"not zero-shot: {label}"
