"""Workers that share a table, whatever their shard sizes, seldom make a row twice."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from storage.locations.location import Location
from storage.tables.table import Plan, Shard, Table, open_table
from storage.tables.turns import Turns

Order = Callable[[Sequence[str]], Sequence[str]]
KEYS = [f"{number:03d}" for number in range(313)]


def publish(table: Table, shard: Shard) -> bool:
    texts, size = [["a"] for _ in shard.members], len(shard.members)
    columns = {"n": [1] * size, "status": ["ok"] * size, "reason": [""] * size}
    rows = table.rows(image_id=shard.members, captions=texts, raw=texts, **columns)
    return table.publish(shard, rows).published


def fresh(location: Location) -> Table:
    return open_table(location, "captions", {"producer": "test"})


def shuffled(keys: Sequence[str]) -> list[str]:
    """An order in which every shard spans nearly all keys, as that of stored pictures does."""
    return sorted(keys, key=lambda key: key[::-1])


ORDERS: list[tuple[Order, Order]] = [(tuple, tuple), (shuffled, shuffled), (tuple, shuffled)]


@pytest.mark.parametrize("orders", ORDERS)
@pytest.mark.parametrize("sizes", [(64, 10), (512, 16), (20, 20)])
def test_racers_with_different_plans_do_not_make_everything_twice(
    tmp_path: Path, sizes: tuple[int, int], orders: tuple[Order, Order]
) -> None:
    race(Location(str(tmp_path)), sizes, orders)


@pytest.mark.parametrize("orders", ORDERS)
def test_racers_on_s3(s3_location: Location, orders: tuple[Order, Order]) -> None:
    race(s3_location, (64, 10), orders)


def race(location: Location, sizes: tuple[int, int], orders: tuple[Order, Order]) -> None:
    """Two workers make a table together; few rows are made by both."""
    made: list[Counter[str]] = [Counter(), Counter()]
    # They plan before either of them has published anything: the worst case.
    plans = [
        fresh(location).plan(KEYS, size, order=order)
        for size, order in zip(sizes, orders, strict=True)
    ]

    def work(own: Counter[str], plan: Plan) -> None:
        table = fresh(Location(location.root))
        for shard in Turns(table, plan):
            time.sleep(0.01 * len(shard.members))  # as a captioner does
            if publish(table, shard):
                own.update(shard.members)

    racers = [threading.Thread(target=work, args=pair) for pair in zip(made, plans, strict=True)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert set(made[0]) | set(made[1]) == set(KEYS) == set(fresh(location).read()["image_id"])
    twice = sum((made[0] + made[1]).values()) - len(KEYS)
    if orders[0] != orders[1]:  # each shard of one shares keys with all of the other
        return
    assert twice <= sum(size for size in sizes if size < len(KEYS))  # of two that began at once


def left_mark(table: Table, shard: Shard) -> str:
    (path,) = table.location.list(f"begun/{table.folder}")
    assert path.endswith(shard.key)
    return path


@pytest.mark.parametrize("reaped", [True, False])
def test_what_a_dead_worker_had_begun_is_made_at_once(location: Location, reaped: bool) -> None:
    table = fresh(location)
    plan = table.plan(KEYS, 512)
    next(iter(Turns(table, plan)))
    path = left_mark(table, plan.shards[0])
    dead = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, dead.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))
    said = table.location.read_bytes(path).decode()
    old = f'"process": {os.getpid()}'
    assert old in said
    table.location.replace(path, said.replace(old, f'"process": {dead.pid}').encode())
    assert list(Turns(table, plan)) == list(plan.shards)
    dead.wait()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"first": 1}'])
def test_a_mark_that_says_nothing_stops_nobody(location: Location, content: bytes) -> None:
    table = fresh(location)
    plan = table.plan(KEYS, 100)
    for shard in plan.shards:
        table.location.create(f"begun/{table.folder}/{shard.key}", content)
    assert sorted(shard.members for shard in Turns(table, plan)) == [s.members for s in plan.shards]


def test_a_shard_that_could_not_be_made_is_not_waited_for(location: Location) -> None:
    table = fresh(location)
    plan = table.plan(KEYS, 512)
    failing = Turns(table, plan)
    failing.end(next(iter(failing)).key)
    assert [shard.members for shard in Turns(table, plan)] == [tuple(KEYS)]


def test_rows_that_others_published_since_the_plan_are_left_out(location: Location) -> None:
    table = fresh(location)
    plan = table.plan(KEYS, 512)
    publish(table, Shard.of(KEYS[100:200]))
    (rest,) = Turns(table, plan)
    assert rest == Shard.of(KEYS[:100] + KEYS[200:])


def test_failed_rows_that_another_worker_has_retried_are_left_out(location: Location) -> None:
    table = fresh(location)
    size = len(KEYS)
    columns = {"n": [0] * size, "status": ["odd"] * size, "reason": ["so"] * size}
    texts = [[""]] * size
    rows = table.rows(image_id=KEYS, captions=texts, raw=texts, **columns)
    table.publish(Shard.of(KEYS), rows)
    plan = table.plan(KEYS, 512, retry_failed=True)
    publish(table, Shard.of(KEYS[:13], attempt=1))
    (rest,) = Turns(table, plan)
    assert rest == Shard.of(KEYS[13:], attempt=1)
