"""The caption backfill, killed with SIGKILL and raced, on local disk and on an S3 API.

The real captioner captions drawn pictures; only Prefect is left out (see
`tests.fakes.caption_backfill`). Whatever happens, the table must end as that of an undisturbed
run, and no shard that was published may ever be captioned again.
"""

from __future__ import annotations

import random
import signal
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import polars as pl
import pytest

from storage.collections.collection import ingest
from storage.locations.location import Entry, Location
from storage.tables.table import Table, require_complete
from tasks.profile_stages import caption_stage
from tasks.settings import Profile
from tests.fakes.drawn import draw_folder, small_profile
from tests.fakes.workers import Workers

IMAGES = 60
SHARD = 2
COLLECTION = "drawn"


class Backfills(Workers):
    """Workers that caption, and the table that they fill."""

    def __init__(self, profile: Profile, log: Path, repository: Path) -> None:
        """Start it; it is ready when the captioner is loaded."""
        self._profile = profile
        super().__init__("tests.fakes.caption_backfill", profile, COLLECTION, log, repository)

    def stage_table(self, root: str) -> tuple[Table, list[str]]:
        """The captions table at a root, and the keys that it should hold."""
        profile = self._profile.model_copy(update={"root": root})
        stage = caption_stage(profile, COLLECTION)
        return stage.table(), stage.planned()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of drawn pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    draw_folder(folder, IMAGES, seed=21)
    return folder


@pytest.fixture(scope="module")
def backfills(
    s3_environment: None, tmp_path_factory: pytest.TempPathFactory, repository: Path
) -> Iterator[Backfills]:
    """One forking process for all tests; it knows the way to the S3 server."""
    folder = tmp_path_factory.mktemp("backfills")
    profile = small_profile(folder / "nowhere", captions=2, shard=SHARD)
    running = Backfills(profile, folder / "log.jsonl", repository)
    yield running
    running.close()


@pytest.fixture(scope="module")
def undisturbed(
    backfills: Backfills, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pl.DataFrame, float]:
    """The table that nobody disturbed, and how long it took."""
    root = str(tmp_path_factory.mktemp("undisturbed"))
    ingest(Location(root), pictures, COLLECTION)
    outcome = backfills.run(root)
    assert outcome["ends"] == [0]
    table, keys = backfills.stage_table(root)
    assert require_complete(table, keys).ok == IMAGES
    assert len(backfills.begun(root)) == IMAGES / SHARD
    return table.read(), outcome["seconds"]


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path, pictures: Path) -> str:
    """A place with the collection in it and no captions yet."""
    if request.param == "local":
        place = str(tmp_path / "root")
    else:
        request.getfixturevalue("s3_environment")
        bucket = f"backfill-{uuid.uuid4().hex}"
        fsspec.filesystem("s3", use_listings_cache=False).mkdir(bucket)
        place = f"s3://{bucket}/tables"
    ingest(Location(place), pictures, COLLECTION)
    return place


def published(table: Table) -> dict[str, Entry]:
    """The parts by name; their stamp is the time of writing locally and the ETag on S3."""
    return {entry.path.rpartition("/")[2]: entry for entry in table.parts()}


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(
    backfills: Backfills, undisturbed: tuple[pl.DataFrame, float], root: str
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # shown when the test fails
    chance = random.Random(seed)
    wanted, seconds = undisturbed
    table, _ = backfills.stage_table(root)
    for _ in range(6):
        # A quarter of the moments lie in the start, before any shard; the others anywhere in the
        # first shards: in the captioner, in the writing of a part, between two shards.
        shards = 0 if chance.random() < 0.25 else chance.choice((1, 1, 1, 2))
        spread = 0.2 if shards == 0 else 1.2 * seconds / (IMAGES / SHARD)
        if len(published(table)) > IMAGES / SHARD - 4:  # leave work for the kills to come
            shards, spread = 1, 0.01
        with nothing_done_twice(backfills, root):
            kill = {"shards": shards, "seconds": chance.uniform(0.0, spread)}
            assert backfills.run(root, kill=kill)["ends"] == [-signal.SIGKILL]
    with nothing_done_twice(backfills, root):
        assert backfills.run(root)["ends"] == [0]
    check_end(backfills, root, wanted)


@pytest.mark.slow
def test_two_backfills_racing_even_when_both_are_killed(
    backfills: Backfills, undisturbed: tuple[pl.DataFrame, float], root: str
) -> None:
    wanted, _ = undisturbed
    with nothing_done_twice(backfills, root):
        outcome = backfills.run(root, workers=2, kill={"shards": IMAGES / SHARD // 2, "seconds": 0})
    assert outcome["ends"] == [-signal.SIGKILL] * 2
    with nothing_done_twice(backfills, root):
        assert backfills.run(root, workers=2)["ends"] == [0, 0]
    assert len({line["pid"] for line in backfills.begun(root)}) >= 3  # it was a race
    check_end(backfills, root, wanted, racers=2)


@contextmanager
def nothing_done_twice(backfills: Backfills, root: str) -> Iterator[None]:
    """Published shards are neither captioned again inside nor written again; none is half there."""
    table, _ = backfills.stage_table(root)
    before, done = published(table), set(table.read(["status"])["image_id"])
    begun = len(backfills.begun(root))
    yield
    assert table.verify() == []
    after = published(table)
    assert {name: after.get(name) for name in before} == before
    again = {key for line in backfills.begun(root)[begun:] for key in line["members"]} & done
    assert again == set()
    kinds = {
        path.rpartition("/")[2].partition("-")[0] for path in table.location.list(table.folder)
    }
    assert kinds <= {"part", "complete", "cost", "spec.json"}


def check_end(backfills: Backfills, root: str, wanted: pl.DataFrame, racers: int = 1) -> None:
    """The table is that of an undisturbed run, without duplicates; shards were made once."""
    table, keys = backfills.stage_table(root)
    assert require_complete(table, keys).ok == IMAGES
    assert table.read().equals(wanted)
    parts = published(table)
    assert len(parts) == IMAGES / SHARD
    rows = [pl.read_parquet(table.location.open_read(entry.path)) for entry in table.parts()]
    assert sum(map(len, rows)) == IMAGES  # no key lies in two parts
    begun = Counter(tuple(line["members"]) for line in backfills.begun(root))
    assert len(begun) == IMAGES / SHARD
    assert backfills.run(root, workers=racers)["ends"] == [0] * racers
    assert sum(begun.values()) == len(backfills.begun(root))  # a complete table makes no calls
    assert published(table) == parts
