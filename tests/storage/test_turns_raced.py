"""Processes with other shard sizes race on one table, and one of them may be killed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from storage.checks.root import check_root
from storage.locations.location import Location
from storage.tables.table import open_table

REPOSITORY = Path(__file__).resolve().parents[2]
KEYS = [f"{number:03d}" for number in range(313)]

WORKER = """
import json, random, sys, time
from storage.locations.location import Location
from storage.tables.table import open_table
from storage.tables.turns import Turns

root, size, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)
print("ready", flush=True)
sys.stdin.readline()
time.sleep(chance.uniform(0.0, 0.3))
table = open_table(Location(root), "captions", {"producer": "raced"})
turns = Turns(table, table.plan([f"{number:03d}" for number in range(313)], size))
for shard in turns:
    print("begun", json.dumps(shard.members), flush=True)
    # Longer than the other one takes from its look to its mark, or it would miss two shards.
    time.sleep(0.2 + chance.uniform(0.002, 0.006) * len(shard.members))
    texts, count = [[f"of {key}"] for key in shard.members], len(shard.members)
    columns = {"n": [1] * count, "status": ["ok"] * count, "reason": [""] * count}
    rows = table.rows(image_id=shard.members, captions=texts, raw=texts, **columns)
    table.publish(shard, rows)
    turns.end(shard.key)
    print("ended", json.dumps(shard.members), flush=True)
"""


def members(output: str, word: str) -> Counter[str]:
    """How often each key was begun or ended by a process."""
    lines = [line.partition(" ") for line in output.splitlines()]
    return Counter(key for said, _, keys in lines if said == word for key in json.loads(keys))


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("sizes", [(64, 10), (100, 512)])
def test_no_row_is_lost_or_doubled_and_few_are_made_twice(
    location: Location, sizes: tuple[int, int], killed: bool
) -> None:
    seed = random.SystemRandom().randrange(2**31)
    print(f"seed {seed}")  # shown when the test fails
    chance = random.Random(seed)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, location.root, str(size), str(seed + number)],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, size in enumerate(sizes)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    victim = chance.choice(racers)
    if killed:
        time.sleep(chance.uniform(0.2, 1.0))
        victim.kill()
    outputs = [racer.communicate()[0] for racer in racers]
    assert all(racer.returncode == 0 for racer in racers if not killed or racer is not victim)

    table = open_table(location, "captions", {"producer": "raced"})
    rows = table.read()
    assert rows["image_id"].to_list() == KEYS
    assert rows["captions"].to_list() == [[f"of {key}"] for key in KEYS]
    assert check_root(location).faults == []
    begun = sum((members(output, "begun") for output in outputs), Counter())
    died = sum((members(o, "begun") - members(o, "ended") for o in outputs), Counter())
    # Twice: what two began at once before they saw the other's mark, and what a dead one held.
    assert sum((begun - Counter(KEYS)).values()) <= sum(s for s in sizes if s < 512) + died.total()
