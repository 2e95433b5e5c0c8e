"""Features are the same whatever the shard size, up to rounding of float32 (docs/tables.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from storage.collections.collection import ingest
from storage.locations.location import Location
from storage.tables.table import Shard
from tasks.planner import gallery_stages
from tests.fakes.drawn import draw_folder, small_profile


def test_features_of_other_shard_sizes_differ_in_rounding_only(tmp_path: Path) -> None:
    draw_folder(tmp_path / "pictures", 9, seed=3)
    vectors = {}
    for size in (9, 2, 1):
        root = tmp_path / f"root-{size}"
        ingest(Location(str(root)), tmp_path / "pictures", "drawn")
        stages = gallery_stages(small_profile(root, captions=1, shard=size), "drawn", "image-only")
        (stage,) = stages.values()
        table, keys = stage.table(), stage.planned()
        for start in range(0, 9, size):
            shard = Shard.of(keys[start : start + size])
            table.publish(shard, stage.rows(shard.members, lambda count: None))
        assert len(table.parts()) == -(-9 // size)
        vectors[size] = table.vectors(keys)
    largest = float(np.abs(vectors[9]).max())
    for size in (2, 1):
        assert vectors[size] == pytest.approx(vectors[9], abs=2e-6 * largest, rel=0)
