"""Triplet generation, killed with SIGKILL: captions and texts end as those of an undisturbed run.

The shipped captioner captions drawn pictures, the client puts real requests to a server that lives
in the test; half of its answers break the contract. Only Prefect is left out.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.stages.pair_samples import PairSample, PairSource
from tasks.stages.triplets import TripletStage
from tests.fakes.difference_server import fickle_difference, triplet_profile
from tests.fakes.drawn import draw_folder
from tests.fakes.openai_server import FakeOpenAIServer
from tests.fakes.workers import Workers

pytestmark = pytest.mark.slow

IMAGES, PAIRS, SHARD = 12, 48, 4
KILLS = 8
SAMPLE = PairSample(sources=(PairSource(collection="drawn"),), count=PAIRS, seed=7)


class Generations(Workers):
    """Workers that caption and write, and the stage that they fill."""

    def __init__(self, server: FakeOpenAIServer, folder: Path, repository: Path) -> None:
        """Start the forking process; it is ready when the captioner is loaded."""
        self._profile = triplet_profile(folder / "nowhere", server.base_url, SHARD)
        log = folder / "log.jsonl"
        super().__init__(
            "tests.fakes.triplet_generation",
            self._profile,
            SAMPLE.model_dump_json(),
            log,
            repository,
        )

    def stage(self, root: str) -> TripletStage:
        """The stage at a root."""
        from flows.generate_triplets import triplet_stage

        return triplet_stage(self._profile.model_copy(update={"root": root}), SAMPLE)


@pytest.fixture(scope="module")
def generations(
    tmp_path_factory: pytest.TempPathFactory, repository: Path
) -> Iterator[Generations]:
    """One server and one forking process for all tests."""
    with FakeOpenAIServer(then=fickle_difference) as server:
        running = Generations(server, tmp_path_factory.mktemp("generations"), repository)
        yield running
        running.close()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn pictures in two classes."""
    folder = tmp_path_factory.mktemp("pictures")
    draw_folder(folder / "north", IMAGES // 2, seed=21)
    draw_folder(folder / "south", IMAGES // 2, seed=22)
    return folder


@pytest.fixture(scope="module")
def undisturbed(
    generations: Generations, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[pl.DataFrame, pl.DataFrame, float]:
    """The tables that nobody disturbed, and how long they took."""
    root = str(tmp_path_factory.mktemp("undisturbed"))
    ingest(Location(root), pictures, "drawn")
    outcome = generations.run(root)
    assert outcome["ends"] == [0]
    stage = generations.stage(root)
    rows = stage.table().read()
    assert len(rows) == PAIRS
    assert set(rows["status"]) == {"ok", "rejected"}  # some gave three bad answers
    assert rows["attempts"].max() == 3
    return stage.captions.table().read(), rows, outcome["seconds"]


def test_killed_at_random_moments_and_resumed(
    generations: Generations,
    undisturbed: tuple[pl.DataFrame, pl.DataFrame, float],
    pictures: Path,
    tmp_path: Path,
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # shown when the test fails
    chance = random.Random(seed)
    captions, rows, seconds = undisturbed
    root = str(tmp_path / "root")
    ingest(Location(root), pictures, "drawn")
    stage = generations.stage(root)
    shards = (IMAGES + PAIRS) // SHARD
    for _ in range(KILLS):
        begun, spread = chance.choice((0, 1, 1, 1, 2)), 1.5 * seconds / shards
        if len(stage.table().read()) > PAIRS - 4 * SHARD:  # leave work for the kills to come
            begun, spread = 1, 0.01
        kill = {"shards": begun, "seconds": chance.uniform(0.0, spread)}
        assert generations.run(root, kill=kill)["ends"] == [-signal.SIGKILL]
        assert stage.captions.table().verify() == stage.table().verify() == []
    assert generations.run(root)["ends"] == [0]
    assert stage.captions.table().read().equals(captions)
    assert stage.table().read().equals(rows)
    assert len(stage.table().parts()) == PAIRS // SHARD  # nothing was made twice
    before = len(generations.begun(root))
    assert generations.run(root)["ends"] == [0]
    assert len(generations.begun(root)) == before
