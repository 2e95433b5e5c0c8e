"""Backfills on a cluster that loses a worker half-way, or its server again and again.

Postgres, the server, the S3 store and the workers are real; nothing leaves this machine. All tests
stand on one cluster and one collection; the number of captions says whose table it is.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
import pytest

from storage.collections.collection import ingest
from storage.locations.location import Location
from storage.tables.table import Shard, Table
from tasks.profile_stages import caption_stage
from tests.cluster.conftest import ROOT, SILENCE
from tests.fakes.cluster import Cluster
from tests.fakes.drawn import draw_folder, small_profile, small_settings
from tests.fakes.filled_tables import fill

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.timeout(3600)]

COLLECTION = "drawn"
IMAGES, SHARD = 900, 30
SHARDS = IMAGES // SHARD
KILLS = int(os.environ.get("CIRFLOW_SERVER_KILLS", "2"))
"""SIGKILLs of the server; as many runs are started as it takes."""
ENDED = {"Completed", "Failed", "Crashed"}
PATIENCE = 900.0
"""Seconds that a step may take on a very busy machine; a quiet one needs a tenth."""

Undisturbed = Callable[[int], Future[pl.DataFrame]]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of drawn pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    draw_folder(folder, IMAGES, seed=44)
    return folder


@pytest.fixture(scope="module")
def undisturbed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    """Captions of each by this process on a local disk, made while the cluster is at work."""
    root = tmp_path_factory.mktemp("undisturbed")
    ingest(Location(str(root)), pictures, COLLECTION)

    def make(captions: int) -> pl.DataFrame:
        stage = caption_stage(small_profile(root, captions, SHARD), COLLECTION)
        fill(stage)
        return stage.table().read()

    with ThreadPoolExecutor(1) as pool:
        yield lambda captions: pool.submit(make, captions)


@pytest.fixture(scope="module")
def loaded(pictures: Path, cluster: Cluster) -> Cluster:
    """The cluster with the pictures in its store; its backfills note what they do."""
    from flows.backfill_captions import DEPLOYMENT

    ingest(Location(ROOT), pictures, COLLECTION)
    cluster.set_entrypoint(DEPLOYMENT, "tests.fakes.noted_backfill.backfill_captions")
    return cluster


@pytest.fixture
def workers(loaded: Cluster, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Two workers, each on a host of its own; what is left of them ends with the test."""
    test = request.node.name
    names = (f"alpha-{test}", f"beta-{test}")
    for name, partner in zip(names, reversed(names), strict=True):
        loaded.start_worker(name, partner)
    yield names
    for name in names:
        loaded.stop_worker(name)


@dataclass(frozen=True)
class Backfill:
    """A backfill by runs of one deployment, seen from outside.

    Attributes:
        cluster: Where it runs.
        captions: How many of each image; says which table is filled.
        first: The run that somebody started; it starts the others.
    """

    cluster: Cluster
    captions: int
    first: UUID

    @classmethod
    def start(cls, cluster: Cluster, captions: int, runs: int = 2) -> Backfill:
        """Start it as the form in the UI does."""
        from flows.backfill_captions import DEPLOYMENT

        return cls(cluster, captions, cluster.start_run(DEPLOYMENT, cls.form(captions, runs)))

    @staticmethod
    def form(captions: int, runs: int) -> Mapping[str, Any]:
        """What is filled in."""
        settings = small_settings(ROOT, captions, SHARD)
        return {"collection": COLLECTION, "runs": runs, "profile": "tiny", "settings": settings}

    @property
    def table(self) -> Table:
        """The table that it fills."""
        return caption_stage(small_profile(ROOT, self.captions, SHARD), COLLECTION).table()

    def published(self) -> set[str]:
        """Names of the parts."""
        return {entry.path.rpartition("/")[2] for entry in self.table.parts()}

    def begun(self, worker: str) -> list[str]:
        """Names of the parts that a worker was about to make, in order."""
        notes = [shard for shard in self.cluster.begun() if shard.worker == worker]
        return [f"part-{Shard.of(note.members).key}.parquet" for note in notes]

    def run_on(self, worker: str) -> UUID:
        """The run that a worker took."""
        (run,) = {shard.run for shard in self.cluster.begun() if shard.worker == worker}
        return run

    def wait_until_half_way(self, workers: Sequence[str]) -> None:
        """Wait until half the parts are there and each worker made some of them."""
        self.cluster.wait_until(
            lambda: (
                len(self.published()) >= SHARDS / 2
                and all(len(self.begun(worker)) > 2 for worker in workers)
            ),
            "half the shards are made, and some by each worker",
            PATIENCE,
        )

    def wait_for_end(self, run: UUID, state: str) -> None:
        """Wait until a run ended in a state.

        On a very busy machine a run that lives may be called Crashed for a while, when the server
        was away for longer than the silence that the rule allows; its own end overrules that.
        """
        self.cluster.wait_until(
            lambda: self.cluster.state(run).name == state, f"flow run {run} is {state}", PATIENCE
        )


def test_every_row_is_made_once(
    loaded: Cluster, workers: tuple[str, str], undisturbed: Undisturbed
) -> None:
    """The helper's worker dies and the server goes away for a while; nobody has to do anything."""
    wanted = undisturbed(3)
    backfill = Backfill.start(loaded, captions=3)
    backfill.wait_until_half_way(workers)
    left, lost = sorted(workers, key=lambda name: backfill.run_on(name) != backfill.first)

    made_before = lose_in_the_middle_of_a_shard(backfill, lost)
    loaded.stop_server()
    loaded.start_server()
    assert made_before < backfill.published()  # nobody waited for the server
    backfill.wait_for_end(backfill.first, "Completed")

    check_taken_over(backfill, lost, left, made_before)
    assert backfill.table.read().equals(wanted.result())

    again = Backfill.start(loaded, captions=3)
    again.wait_for_end(again.first, "Completed")
    assert not [note for note in loaded.begun() if note.run == again.first]
    backfill.wait_for_end(backfill.run_on(lost), "Crashed")
    message = loaded.state(backfill.run_on(lost)).message
    assert f"No heartbeat for {SILENCE.total_seconds() / 60:g} minutes" in str(message)


def test_the_run_that_was_started_may_die(loaded: Cluster, workers: tuple[str, str]) -> None:
    """Its helper makes the whole table, just as it would itself."""
    backfill = Backfill.start(loaded, captions=2)
    backfill.wait_until_half_way(workers)
    lost, left = sorted(workers, key=lambda name: backfill.run_on(name) != backfill.first)

    made_before = lose_in_the_middle_of_a_shard(backfill, lost)
    backfill.wait_for_end(backfill.run_on(left), "Completed")
    check_taken_over(backfill, lost, left, made_before)


def lose_in_the_middle_of_a_shard(backfill: Backfill, worker: str) -> set[str]:
    """Kill a host while the shard that it makes is not published; returns what is."""
    made: set[str] = set()

    def in_the_middle() -> bool:
        with backfill.cluster.standing_still(worker):
            found = backfill.published()
            if backfill.begun(worker)[-1] in found:
                return False
            backfill.cluster.lose_host(worker)
        made.update(found)
        return True

    backfill.cluster.wait_until(in_the_middle, f"{worker} makes a shard", PATIENCE)
    return made


def check_taken_over(backfill: Backfill, lost: str, left: str, made_before: set[str]) -> None:
    """Every row is there once; only what was lost was made again, and by the other worker."""
    check_rows(backfill)
    begun = Counter(backfill.begun(lost) + backfill.begun(left))
    again = {name for name, times in begun.items() if times > 1}
    assert set(begun) == backfill.published()
    # It was in the middle of the last; others may have waited for images of the same batch.
    assert again == set(backfill.begun(lost)) - made_before
    assert backfill.begun(lost)[-1] in again
    assert again < set(backfill.begun(left))
    assert set(backfill.begun(lost)) - again <= made_before  # what it had finished, stands


def check_rows(backfill: Backfill) -> None:
    """Every row lies in one part, once."""
    table = backfill.table
    rows = pl.concat(
        pl.read_parquet(table.location.open_read(entry.path), columns=["image_id", "status"])
        for entry in table.parts()
    )
    assert len(rows) == rows["image_id"].n_unique() == IMAGES
    assert set(rows["status"]) == {"ok"}
    assert len(backfill.published()) == SHARDS
    assert table.verify() == []


def test_a_server_that_is_killed_again_and_again_loses_no_row(
    loaded: Cluster, undisturbed: Undisturbed
) -> None:
    """No row is lost, none is there twice."""
    chance = random.Random(seed := random.SystemRandom().randrange(2**32))
    print(f"seed {seed}")  # shown when the test fails
    loaded.start_worker("watcher")
    kills, runs = 0, chain([1], count(4))  # tables of two and three captions are those above
    while kills < KILLS:
        captions = next(runs)
        wanted = undisturbed(captions)
        backfill = Backfill.start(loaded, captions, runs=1)
        kills += kill_server_during(backfill, KILLS - kills, chance)
        backfill.wait_for_end(backfill.first, "Completed")
        check_rows(backfill)
        assert backfill.table.read().equals(wanted.result())
    loaded.stop_worker("watcher")


def kill_server_during(backfill: Backfill, most: int, chance: random.Random) -> int:
    """Kill the server while a run makes shards, and start it again; returns how often."""
    cluster, kills = backfill.cluster, 0

    def ended() -> bool:
        return cluster.state(backfill.first).name in ENDED

    while kills < most:
        seen = len(backfill.published())
        cluster.wait_until(
            lambda seen=seen: len(backfill.published()) > seen or ended(),  # type: ignore[misc]
            "the run makes a shard",
            PATIENCE,
        )
        time.sleep(chance.uniform(0.0, 1.0))
        if len(backfill.published()) >= SHARDS or ended():
            break
        cluster.lose_host("server")
        time.sleep(chance.uniform(0.0, 3.0))
        cluster.start_server()
        kills += 1
    return kills
