"""SIGKILL at random moments, and two processes racing: the table must not show it."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from storage.locations.location import Location
from storage.tables.table import open_table, require_complete

REPOSITORY = Path(__file__).resolve().parents[2]
SPEC = {"model": "killed"}
KEYS = [f"{number:04d}" for number in range(240)]
SHARD_SIZE = 3

WORKER = """
import sys, time
from storage.locations.location import Location
from storage.tables.table import open_table

table = open_table(Location(sys.argv[1]), "captions", {"model": "killed"})
keys = [f"{number:04d}" for number in range(240)]
plan = table.plan(keys, 3)
print("ready", flush=True)
sys.stdin.readline()
for shard in plan.shards:
    texts = [[f"caption of {key}"] * 200 for key in shard.members]
    ones = [1] * len(texts)
    rows = table.rows(image_id=shard.members, captions=texts, n=ones, raw=texts)
    part = table.publish(shard, rows)
    print("made" if part.published else "lost", part.name, flush=True)
    time.sleep(float(sys.argv[2]))
"""


def start(location: Location, pause: float) -> "subprocess.Popen[str]":
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, location.root, str(pause)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "ready\n"
    return worker


def go(worker: "subprocess.Popen[str]") -> None:
    assert worker.stdin is not None
    worker.stdin.write("\n")
    worker.stdin.flush()


def made(output: str) -> list[str]:
    lines = [line.split() for line in output.splitlines()]
    return [line[1] for line in lines if len(line) == 2 and line[0] == "made"]


@pytest.fixture
def undisturbed(tmp_path: Path) -> pl.DataFrame:
    """The table that nobody disturbed."""
    table = open_table(Location(str(tmp_path / "undisturbed")), "captions", SPEC)
    for shard in table.plan(KEYS, SHARD_SIZE).shards:
        texts = [[f"caption of {key}"] * 200 for key in shard.members]
        ones = [1] * len(texts)
        rows = table.rows(image_id=shard.members, captions=texts, n=ones, raw=texts)
        table.publish(shard, rows)
    return table.read()


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(
    location: Location, undisturbed: pl.DataFrame
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # shown when the test fails
    chance = random.Random(seed)
    published: list[str] = []
    kills = 0
    for _ in range(6):
        worker = start(location, 0.01)
        go(worker)
        time.sleep(chance.uniform(0.0, 0.25))
        worker.send_signal(signal.SIGKILL)
        output, _ = worker.communicate()
        kills += worker.returncode == -signal.SIGKILL
        published += made(output)
        table = open_table(location, "captions", SPEC)
        assert table.verify() == []  # a reader never sees half a part
    output, _ = start(location, 0).communicate("\n")
    published += made(output)

    table = open_table(location, "captions", SPEC)
    assert kills > 0
    assert require_complete(table, KEYS).ok == len(KEYS)
    assert table.read().equals(undisturbed)
    parts = [entry.path.rpartition("/")[2] for entry in table.parts()]
    assert len(parts) == len(KEYS) / SHARD_SIZE  # no duplicates
    assert len(set(published)) == len(published)  # no published shard was made again
    assert set(published) <= set(parts)


def test_two_processes_racing(location: Location, undisturbed: pl.DataFrame) -> None:
    workers = [start(location, 0), start(location, 0)]
    for worker in workers:
        go(worker)
    winners = [made(worker.communicate()[0]) for worker in workers]
    table = open_table(location, "captions", SPEC)
    parts = [entry.path.rpartition("/")[2] for entry in table.parts()]
    assert sorted(winners[0] + winners[1]) == parts
    assert len(parts) == len(KEYS) / SHARD_SIZE
    assert table.read().equals(undisturbed)
