"""1,565 real photographs to 600 same-class triplets and a network trained on them.

The small models know drawn things only, so captions and texts mean nothing; every pair must have
its row, enough texts must keep the contract for a training run, with nothing put in their place,
and a training that is killed again and again must end with the weights of an undisturbed one.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from flows.profiles import resolve_profile
from models.instructcir.modification_texts import read_answer
from models.protocols import TextReply
from storage.collections.collection import Collection, ingest
from storage.locations.location import Location
from storage.tables.table import require_complete
from tasks.report.triplets import notes_on, stage_quality
from tasks.stages.pair_samples import PairSample, PairSource
from tests.fakes.filled_tables import fill

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PAIRS = 600
STEPS = 40


def test_real_photographs_become_triplets_and_a_trained_network(
    shared_data: Path, tmp_path: Path
) -> None:
    from flows.generate_triplets import triplet_set, triplet_stage
    from flows.requests.train_reformulation import groups_of
    from flows.train_reformulation import reformulation_job
    from tests.fakes.killed_trainings import assert_kills_change_nothing

    profile = resolve_profile(
        "tiny", {"root": str(tmp_path), "instructcir.captions.max_new_tokens": 32}
    )
    location = Location(profile.root)
    assert ingest(location, shared_data / "clothing" / "images", "clothing").images == 1565
    stage = triplet_stage(
        profile, PairSample(sources=(PairSource(collection="clothing"),), count=PAIRS)
    )
    for each in (stage.captions, stage):
        fill(each)
        table = each.table()
        assert table.verify() == []
        assert table.completeness(each.planned()).missing == 0
    require_complete(stage.captions.table(), stage.captions.planned())

    rows = stage.table().read()
    assert sorted(rows["position"]) == list(range(PAIRS))
    assert rows.select("reference", "target").n_unique() == PAIRS
    classes = dict(
        Collection.open(location, "clothing").rows().select("image_id", "meta_class").iter_rows()
    )
    for reference, target, meta_class in rows.select(
        "reference", "target", "meta_class"
    ).iter_rows():
        assert reference != target
        assert classes[reference] == classes[target] == meta_class

    quality = stage_quality(stage)
    print(quality.by_status, quality.attempts, quality.distinct_texts, quality.vocabulary)
    print([(f.status, f.kind, f.count) for f in quality.failures], notes_on(stage, quality))
    assert quality.rows == PAIRS
    assert quality.ok >= 0.5 * PAIRS
    good = rows.filter(pl.col("status") == "ok")
    for text, raw in good.select("text", "raw").iter_rows():
        assert read_answer(TextReply("", raw)) == (text, "")  # what the model said, nothing else
    assert rows.filter(pl.col("status") != "ok")["text"].null_count() == PAIRS - len(good)

    triplets = triplet_set(stage)
    assert len(triplets.split(32).training) >= 0.4 * PAIRS
    training = {"batch_size": 8, "max_steps": STEPS, "validation": 32, "validate_every": 20}
    job = reformulation_job(
        profile.root, triplets, profile.encoder, groups_of({"training": training})
    )
    assert_kills_change_nothing(job, tmp_path, steps=STEPS, kills=3, longest=16)
