"""Pairs for the rewriter out of tables: a benchmark's own texts, and a teacher's."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.profiles import EMBEDDED
from models.captioners.blip2 import Blip2Settings
from models.prompts.library import load_prompt
from models.protocols import CaptionReply, CaptionSampling
from storage.collections.collection import ingest
from storage.locations.location import Location
from storage.tables.keys import sha256_hex
from storage.tables.table import Shard, open_table
from tasks.query_sets import BenchmarkRef
from tasks.stages.captions import CaptionStage, caption_rows
from tasks.stages.image_sets import ImageSet
from tasks.training.rewriter_pairs import benchmark_pairs, triplet_pairs
from tasks.training.triplet_sets import TripletSet
from tests.fakes.benchmark_layouts import (
    CIRR_NAMES,
    fashioniq_query,
    write_cirr,
    write_fashioniq,
)
from tests.fakes.pictures import png

PROMPT = load_prompt("instructcir_difference", ("caption_a", "caption_b"))


def captioned(tmp_path: Path, ref: BenchmarkRef, silent: str) -> CaptionStage:
    """Captions "this is NAME" of the benchmark's images, but none of one of them."""
    root = Location(str(tmp_path / "tables"))
    benchmark = ref.load()
    ingest(root, next(iter(Path(p).parent for p in benchmark.image_paths.values())), ref.collection)
    stage = CaptionStage(
        root=root.root,
        images=ImageSet(collection=ref.collection, benchmark=ref),
        captioner=Blip2Settings(model=str(EMBEDDED / "blip2"), device="cpu", dtype="fp32"),
        sampling=CaptionSampling(n=1, mode="greedy"),
    )
    names = {
        sha256_hex(Path(path).read_bytes()): name for name, path in benchmark.image_paths.items()
    }
    replies = {
        key: CaptionReply(key, (f"this is {name}",))
        if name != silent
        else CaptionReply(key, (), "engine_error", "no")
        for key, name in names.items()
    }
    for shard in stage.table().plan(stage.planned(), 100).shards:
        stage.table().publish(shard, caption_rows(stage, shard.members, replies))
    return stage


def draw(folder: Path, names: list[str]) -> None:
    folder.mkdir(parents=True)
    for seed, name in enumerate(names):
        (folder / f"{name}.png").write_bytes(png(seed))


def prompt_of(before: str, after: str) -> str:
    template = PROMPT.template.replace("{caption_a}", f"this is {before}")
    return template.replace("{caption_b}", f"this is {after}")


def test_cirr_training_texts_stand_between_captions_of_their_images(tmp_path: Path) -> None:
    folder = write_cirr(tmp_path / "cirr", "train")
    draw(folder / "dev", list(CIRR_NAMES))
    ref = BenchmarkRef(name="cirr", root=str(folder), split="train", collection="images")
    found = benchmark_pairs(ref, captioned(tmp_path, ref, silent=CIRR_NAMES[2]), PROMPT)
    # The second query's target (image 2) has no caption; the first leads from image 0 to 3.
    assert [(pair.prompt, pair.answer) for pair in found.pairs] == [
        (prompt_of(CIRR_NAMES[0], CIRR_NAMES[3]), "caption 0")
    ]
    assert (found.name, found.benchmarks) == ("cirr train", ("cirr",))
    assert found.left_out == {"no text": 1}


def test_each_annotator_of_fashioniq_gives_an_answer(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    long = "is " + "very " * 12 + "long"
    folder = write_fashioniq(
        tmp_path / "fashioniq",
        {"dress": names},
        {
            "dress": [
                fashioniq_query("a", "b", "is blue.", long),
                fashioniq_query("b", "c", "x", "y"),
            ]
        },
        "train",
    )
    draw(folder / "images", names)
    ref = BenchmarkRef(name="fashioniq", root=str(folder), split="train", collection="images")
    found = benchmark_pairs(ref, captioned(tmp_path, ref, silent=""), PROMPT)
    assert [(pair.prompt, pair.answer) for pair in found.pairs] == [
        (prompt_of("a", "b"), "is blue"),
        (prompt_of("b", "c"), "x"),
        (prompt_of("b", "c"), "y"),
    ]
    assert found.left_out == {"too long": 1}
    assert found.benchmarks == ("fashioniq",)


@pytest.mark.parametrize("seen", [(), ("cirr",)])
def test_who_learns_from_a_writer_has_seen_what_the_writer_saw(
    tmp_path: Path, seen: tuple[str, ...]
) -> None:
    generator: dict[str, object] = {"engine": "openai-server"}
    if seen:
        generator["saw_benchmark_texts"] = list(seen)
    table = open_table(Location(str(tmp_path)), "triplets", {"generator": generator})
    rows = table.rows(
        triplet_id=["t1", "t2"],
        position=[1, 0],
        reference=["i", "j"],
        target=["k", "l"],
        source=["s", "s"],
        meta_class=["", ""],
        reference_caption=["this is i", "this is j"],
        target_caption=["this is k", "this is l"],
        text=["make it blue", None],
        attempts=[1, 3],
        raw=["make it blue", "*"],
        answered_by=["", ""],
        status=["ok", "rejected"],
        reason=["", "special characters: *"],
    )
    table.publish(Shard.of(["t1", "t2"], 0), rows)
    triplets = TripletSet(root=str(tmp_path), spec_key=table.spec_key, collections=("s",), count=2)
    found = triplet_pairs(triplets, PROMPT)
    assert [(p.prompt, p.answer) for p in found.pairs] == [(prompt_of("i", "k"), "make it blue")]
    assert found.benchmarks == seen
