"""Backfills whose Prefect server is killed again and again: no row is lost, none is there twice."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from uuid import UUID

import polars as pl
import pytest

from storage.collections.collection import ingest
from storage.locations.location import Location
from storage.tables.table import Table
from tasks.profile_stages import caption_stage
from tests.fakes.cluster import Cluster
from tests.fakes.drawn import draw_folder, small_profile, small_settings
from tests.fakes.workers import Workers

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.timeout(3600)]

KILLS = int(os.environ.get("CIRFLOW_SERVER_KILLS", "2"))
"""SIGKILLs of the server; as many runs are started as it takes."""
ROOT = "s3://cluster/watched"
"""A root of its own: the cluster's store is that of other tests, too."""
COLLECTION, IMAGES, SHARD = "watched", 600, 20
ENDED = {"Completed", "Failed", "Crashed"}


def test_every_row_is_there_once(
    cluster: Cluster, tmp_path: Path, s3_environment: None, repository: Path
) -> None:
    chance = random.Random(seed := random.SystemRandom().randrange(2**32))
    print(f"seed {seed}")  # shown when the test fails
    draw_folder(tmp_path / "pictures", IMAGES, seed=45)
    ingest(Location(ROOT), tmp_path / "pictures", COLLECTION)
    cluster.start_worker("watcher")
    kills, captions = 0, 0
    while kills < KILLS:
        captions += 1
        run = start(cluster, captions)
        kills += kill_during(cluster, run, table_of(captions), KILLS - kills, chance)
        cluster.wait_until(lambda of=run: ended(cluster, of), f"flow run {run} ended", 900)  # type: ignore[misc]
        assert cluster.state(run).name == "Completed"
        check(table_of(captions), undisturbed(tmp_path, captions, repository))
    cluster.stop_worker("watcher")
    print(f"{kills} kills in {captions} runs")


def start(cluster: Cluster, captions: int) -> UUID:
    """Start a backfill as the form in the UI does; the number of captions says which table."""
    from flows.backfill_captions import DEPLOYMENT

    settings = small_settings(ROOT, captions, SHARD)
    given = {"collection": COLLECTION, "profile": "tiny", "settings": settings}
    return cluster.start_run(DEPLOYMENT, given)


def table_of(captions: int) -> Table:
    """The table that a run fills."""
    return caption_stage(small_profile(ROOT, captions, SHARD), COLLECTION).table()


def ended(cluster: Cluster, run: UUID) -> bool:
    """Whether the run is in a final state."""
    return cluster.state(run).name in ENDED


def kill_during(cluster: Cluster, run: UUID, table: Table, most: int, chance: random.Random) -> int:
    """Kill the server while a run makes shards, and start it again; returns how often."""
    kills = 0
    while kills < most:
        seen = len(table.parts())
        cluster.wait_until(
            lambda seen=seen: len(table.parts()) > seen or ended(cluster, run),  # type: ignore[misc]
            "the run makes a shard",
            600,
        )
        time.sleep(chance.uniform(0.0, 1.0))
        if len(table.parts()) >= IMAGES / SHARD or ended(cluster, run):
            break
        cluster.lose_host("server")
        time.sleep(chance.uniform(0.0, 3.0))
        cluster.start_server()
        kills += 1
    return kills


def undisturbed(folder: Path, captions: int, repository: Path) -> pl.DataFrame:
    """The same captions by one process on a local disk."""
    profile = small_profile(folder / f"root-{captions}", captions, SHARD)
    ingest(Location(profile.root), folder / "pictures", COLLECTION)
    log = folder / f"log-{captions}.jsonl"
    process = Workers("tests.fakes.caption_backfill", profile, COLLECTION, log, repository)
    assert process.run(profile.root)["ends"] == [0]
    process.close()
    return caption_stage(profile, COLLECTION).table().read()


def check(table: Table, wanted: pl.DataFrame) -> None:
    """Every row lies in one part, once, and is the row of an undisturbed run."""
    assert table.verify() == []
    rows = pl.concat(
        pl.read_parquet(table.location.open_read(entry.path), columns=["image_id"])
        for entry in table.parts()
    )
    assert len(rows) == rows["image_id"].n_unique() == IMAGES
    assert table.read().equals(wanted)
