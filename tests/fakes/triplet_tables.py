"""A small triplets table over drawn pictures, as generation would leave it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from models.encoders.spec import EncoderSpec
from models.triplets import triplet_id
from storage.collections.collection import Collection, ingest
from storage.locations.location import Location
from storage.tables.table import open_table
from tasks.training.triplet_sets import TripletSet
from tests.fakes.drawn import draw_folder

if TYPE_CHECKING:
    from tasks.training.reformulation_job import ReformulationJob

COLLECTION = "drawn"
WORDS = ("make it red", "a blue star instead", "add a small circle", "remove the square", "larger")


def write_triplets(root: str, pairs: int = 60, pictures: int = 30, seed: int = 0) -> TripletSet:
    """Draw pictures, ingest them, and write triplets with arbitrary texts among them.

    Every tenth pair is a rejected row. Three meta classes.
    """
    location = Location(root)
    with tempfile.TemporaryDirectory() as place:
        draw_folder(Path(place), pictures, seed)
        ingest(location, place, COLLECTION)
    images = Collection.open(location, COLLECTION).image_ids()
    rng = Random(seed)
    ordered = [(a, b) for a in images for b in images if a != b]
    rows = [
        _row(position, *pair, rng.choice(WORDS))
        for position, pair in enumerate(rng.sample(ordered, pairs))
    ]
    table = open_table(
        location, "triplets", {"producer": "cirflow/triplets/0", "test": "drawn", "seed": seed}
    )
    (shard,) = table.plan([row["triplet_id"] for row in rows], shard_size=pairs).shards
    by_id = {row["triplet_id"]: row for row in rows}
    table.publish(
        shard,
        pa.Table.from_pylist([by_id[key] for key in shard.members], table.schema.arrow),
    )
    return TripletSet(
        root=root, spec_key=table.spec_key, collections=(COLLECTION,), count=len(rows)
    )


def _row(position: int, reference: str, target: str, text: str) -> dict[str, object]:
    failed = position % 10 == 9
    return {
        "triplet_id": triplet_id(reference, target),
        "position": position,
        "reference": reference,
        "target": target,
        "source": COLLECTION,
        "meta_class": f"class-{position % 3}",
        "reference_caption": "a drawing",
        "target_caption": "another drawing",
        "text": None if failed else text,
        "attempts": 3 if failed else 1,
        "raw": text,
        "answered_by": "",
        "status": "rejected" if failed else "ok",
        "reason": "13 words" if failed else "",
    }


def small_job(
    root: str,
    triplets: TripletSet,
    *,
    not_zero_shot: bool = False,
    start: str = "",
    **changes: Any,
) -> ReformulationJob:
    """A job that trains a random CLIP of 32 pixels for a few steps; `training` is merged in."""
    from flows.requests.train_reformulation import groups_of
    from flows.train_reformulation import reformulation_job
    from tests.fakes.small_clip import write_small_clip

    clip = Path(triplets.root, "clip")
    if not clip.exists():
        clip.mkdir(parents=True)
        write_small_clip(clip, {"layers": 2}, merges=["r e", "re d</w>", "b l", "a d"])
    training = {
        "batch_size": 8,
        "max_steps": 10,
        "validation": 5,
        "validate_every": 4,
        "learning_rate": 1e-3,
        "new_learning_rate": 3e-3,
        "seed": 3,
    }
    return reformulation_job(
        root,
        triplets,
        EncoderSpec(name=str(clip), device="cpu"),
        groups_of(
            {
                "loss": {"temperature": 0.1},
                **changes,
                "training": training | changes.get("training", {}),
            }
        ),
        not_zero_shot,
        start,
    )
