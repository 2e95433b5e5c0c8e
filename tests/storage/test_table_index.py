"""Random tables against a naive oracle, and what reading them opens.

The oracle reads every part with pyarrow and goes through the rows one by one.
"""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.checks.root import check_root, repair_root
from storage.locations.location import Location
from storage.locations.stores import LocalStore
from storage.tables import index
from storage.tables import table as tables
from storage.tables.costs import Cost
from storage.tables.plans import Coverage, DerivedKeys, IncompleteTable
from storage.tables.table import Shard, Table, open_table

DIM = 3
UNIVERSE = [f"{number:03d}" for number in range(60)]


def publish(own: Table, members: Sequence[str], failed: set[str], attempt: int, seed: int) -> None:
    shard = Shard.of(members, attempt)
    vectors = np.random.default_rng(seed).random((len(shard.members), DIM), dtype=np.float32)
    bad = [member in failed for member in shard.members]
    rows = own.rows(
        image_id=shard.members,
        vector=vectors,
        status=["too_dark" if each else "ok" for each in bad],
        reason=["no light" if each else "" for each in bad],
    )
    own.publish(shard, rows, seconds=1.0)


def random_table(location: Location, seed: int) -> Table:
    """Parts that overlap, rows that failed and were tried again, keys that are in no part."""
    chosen = random.Random(seed)
    own = open_table(location, "image_features", {"dim": DIM, "dtype": "float32", "seed": seed})
    for number in range(chosen.randrange(1, 12)):
        members = chosen.sample(UNIVERSE[:50], chosen.randrange(1, 20))
        failed = set(chosen.sample(members, chosen.randrange(len(members) + 1)))
        publish(own, members, failed, chosen.randrange(3), 100 * seed + number)
    return own


def oracle(own: Table) -> tuple[dict[str, tuple[str, Any]], Counter[str]]:
    """The status and the vector of the row that counts for each key, and its last attempt."""
    rows: dict[str, tuple[str, Any]] = {}
    attempts: Counter[str] = Counter()
    for name in sorted(path for path in own.location.list(own.folder) if path.endswith(".parquet")):
        found = pq.read_table(pa.BufferReader(own.location.read_bytes(name)))
        said = found.schema.metadata[b"cirflow"].decode()
        attempt = int(said.partition('"attempt": ')[2].partition(",")[0])
        for row in found.to_pylist():
            key = row["image_id"]
            attempts[key] = max(attempts[key], attempt)
            if key not in rows or (rows[key][0] != "ok" and row["status"] == "ok"):
                rows[key] = (row["status"], row["vector"])
    return rows, attempts


@pytest.fixture(params=["cold", "from files", "warm"])
def read_again(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whether a process knows nothing, finds an index beside the parts, or has read them before."""
    monkeypatch.setattr(index, "WORTH_KEEPING", 1 if request.param == "from files" else 10**9)
    monkeypatch.setattr(index, "FILE_ROWS", 20)

    def forget(own: Table) -> None:
        if request.param == "from files":
            own.completeness(UNIVERSE[:1])
        if request.param != "warm":
            index.known_of.cache_clear()

    return forget


@pytest.mark.parametrize("seed", range(6))
def test_reading_equals_the_oracle(tmp_path: Path, seed: int, read_again: Any) -> None:
    own = random_table(Location(str(tmp_path)), seed)
    rows, attempts = oracle(own)
    chosen = random.Random(seed)
    good = sorted(key for key, (status, _) in rows.items() if status == "ok")
    for _ in range(3):
        read_again(own)
        asked = chosen.choices(UNIVERSE, k=30)
        held = sorted({key for key in asked if key in rows})
        statuses = [(key, rows[key][0]) for key in held]
        assert own.read(["status"], asked).rows() == statuses
        found = own.read(["vector", "status"], asked)
        assert list(found["image_id"]) == held
        assert found["vector"].to_list() == [rows[key][1] for key in held]
        parts = [row for part in own.iter_parts(["vector"], asked) for row in part.rows()]
        assert sorted(key for key, _ in parts) == held
        assert all(list(vector or ()) == list(rows[key][1] or ()) for key, vector in parts)
        assert own.usable(asked) == [key for key in held if rows[key][0] == "ok"]
        counted = Counter(rows[key][0] if key in rows else "missing" for key in set(asked))
        whole = len(set(asked)), counted["ok"], counted["too_dark"], counted["missing"]
        assert own.completeness(asked) == Coverage(*whole)
        plan = own.plan(asked, 7, retry_failed=True)
        missing = sorted(set(asked) - rows.keys())
        again = [key for key in held if rows[key][0] != "ok"]
        made = [key for shard in plan.shards for key in shard.members]
        assert made == missing + again
        tries = {shard.attempt for shard in plan.shards} - {0}
        assert tries == ({max(attempts[key] for key in again) + 1} if again else set())
        if good:
            wanted = chosen.choices(good, k=25)
            expected = np.array([rows[key][1] for key in wanted], np.float32)
            np.testing.assert_array_equal(own.vectors(wanted), expected)
        if missing or again:
            with pytest.raises(IncompleteTable, match=str(len({*missing, *again}))):
                own.vectors([*good[:1], *missing, *again])
    assert dict(own.read(["status"]).rows()) == {key: status for key, (status, _) in rows.items()}
    counts = Counter(status for status, _ in rows.values())
    assert own.rows_by_status() == dict(counts)
    sizes = [pq.read_metadata(own.location.join(entry.path)).num_rows for entry in own.parts()]
    assert own.pace() == pytest.approx(sum(sizes) / len(sizes))  # a second a part


# ---------------------------------------------------------------------------- opens


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Names of the parts that were opened, with how often."""
    count: Counter[str] = Counter()
    plain = tables.open_part

    def counted(location: Location, path: str, *rest: Any) -> Any:
        count[path.rpartition("/")[2]] += 1
        return plain(location, path, *rest)

    monkeypatch.setattr(tables, "open_part", counted)
    return count


def whole_table(location: Location, parts: int) -> tuple[Table, list[str]]:
    own = open_table(location, "image_features", {"dim": DIM, "dtype": "float32"})
    keys = [f"{number:05d}" for number in range(4 * parts)]
    for number in range(parts):
        publish(own, keys[number::parts], set(), 0, number)
    return own, keys


def test_each_part_with_wanted_keys_is_opened_once(
    location: Location, opened: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "WORTH_KEEPING", 5)
    own, keys = whole_table(location, 12)
    names = {entry.path.rpartition("/")[2] for entry in own.parts()}
    own.completeness(keys)
    assert opened == Counter(names)  # once, to know which rows they hold
    for forget in (False, True):  # another process finds what this one has read
        opened.clear()
        if forget:
            index.known_of.cache_clear()
        own.vectors(keys)
        assert opened == Counter(names)
        opened.clear()
        own.vectors([keys[0], keys[12], keys[5], keys[0]])
        assert opened == Counter({f"part-{Shard.of(keys[n::12]).key}.parquet" for n in (0, 5)})
        opened.clear()
        own.read(["vector"], [keys[3]])
        assert len(opened) == 1
        opened.clear()
        own.plan([*keys, "new"], 4)
        own.rows_by_status()
        own.read(["status"], keys)
        assert own.pace() == 4
        assert not opened


def test_a_new_part_alone_is_read(location: Location, opened: Counter[str]) -> None:
    own, keys = whole_table(location, 6)
    own.completeness(keys)
    opened.clear()
    publish(own, ["new"], set(), 0, 9)
    assert own.completeness([*keys, "new"]).ok == 25
    assert opened == Counter({f"part-{Shard.of(['new']).key}.parquet"})


@pytest.fixture
def requests(location: Location, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Operations that S3 is asked for, counted; calls of the store on a local disk."""
    count: Counter[str] = Counter()
    if location.is_local:
        from storage.locations.stores import LocalStore as Asked

        names = ("entries", "read", "open", "stat", "exists", "create")
    else:
        from s3fs import S3FileSystem as Asked  # type: ignore[no-redef]

        names = ("_call_s3",)
    plains = {name: getattr(Asked, name) for name in names}
    for name in names:

        def counted(self: Any, first: str, *rest: Any, kind: str = name, **named: Any) -> Any:
            count[first if kind == "_call_s3" else kind] += 1
            return plains[kind](self, first, *rest, **named)

        monkeypatch.setattr(Asked, name, counted)
    return count


def test_a_rerun_costs_the_same_whatever_the_number_of_parts(
    location: Location, requests: Counter[str]
) -> None:
    costs = []
    for parts in (3, 30):
        own, keys = whole_table(Location(location.join(f"of-{parts}")), parts)
        derived = DerivedKeys(f"all of {parts}", lambda own_keys=keys: own_keys)
        own.plan(derived, 4)
        index.known_of.cache_clear()
        requests.clear()
        again = open_table(own.location, own.name, own.spec)
        assert again.plan(DerivedKeys(derived.identity, list), 4).before.ok == len(keys)
        assert again.completeness(DerivedKeys(derived.identity, list)).ok == len(keys)
        costs.append(dict(requests))
    assert costs[0] == costs[1]
    assert sum(costs[0].values()) <= 4  # the spec, and a listing for each question


# ---------------------------------------------------------------------------- damage


def index_files(own: Table) -> list[str]:
    return [path for path in own.location.list(own.folder) if index.is_index(path)]


def test_a_damaged_or_foreign_index_is_not_believed(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "WORTH_KEEPING", 2)
    own, keys = whole_table(location, 4)
    other = open_table(location, "image_features", {"dim": DIM, "dtype": "float32", "n": 2})
    for number in range(4):
        publish(other, keys[number::4], set(keys), 0, number)
    for each in (own, other):
        each.completeness(keys)
    (mine,), (theirs,) = index_files(own), index_files(other)
    assert check_root(location).faults == []
    copied = f"{own.folder}/{theirs.rpartition('/')[2]}"
    location.create(copied, location.read_bytes(theirs))
    location.replace(mine, location.read_bytes(mine)[:-9])
    index.known_of.cache_clear()
    assert own.completeness(keys) == Coverage(16, 16, 0, 0)
    assert {fault.path for fault in check_root(location).faults} == {mine, copied}
    done, left = repair_root(location)
    assert (len(done), left.faults) == (2, [])
    assert not location.exists(copied)


def test_an_index_outlives_parts_that_are_put_aside(
    location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "WORTH_KEEPING", 2)
    own, keys = whole_table(location, 4)
    own.completeness(keys)
    assert index_files(own)
    own.quarantine(own.parts()[0].path.rpartition("/")[2])
    index.known_of.cache_clear()
    assert own.completeness(keys).missing == 4
    assert check_root(location).faults == []


def test_a_part_that_another_process_put_aside_is_looked_for_again(location: Location) -> None:
    own, keys = whole_table(location, 3)
    assert own.vectors(keys).shape == (12, DIM)
    entry = own.parts()[1]
    location.rename(entry.path, f"{entry.path}.quarantined-1")
    with pytest.raises(IncompleteTable, match="no ok row for 4 of 12 keys"):
        own.vectors(keys)
    location.rename(f"{entry.path}.quarantined-1", entry.path)
    assert own.vectors(keys).shape == (12, DIM)


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_root_that_takes_no_file_is_read_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(index, "WORTH_KEEPING", 2)
    own, keys = whole_table(Location(str(tmp_path)), 4)
    shard = Shard.of(keys)

    def refuse(self: LocalStore, path: str, data: bytes) -> bool:
        raise OSError(number, "no", path)

    monkeypatch.setattr(LocalStore, "create", refuse)
    index.known_of.cache_clear()
    files = own.location.list()
    assert own.completeness(keys) == Coverage(16, 16, 0, 0)
    assert own.plan(DerivedKeys("all", lambda: keys), 4).todo == 0
    own.note(shard, Cost(), published=False)
    assert own.location.list() == files


@pytest.mark.parametrize("what", ["plan", "completeness", "read", "rows_by_status", "usable"])
def test_a_part_that_is_put_aside_after_it_was_listed_is_left_out(
    location: Location, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    own, keys = whole_table(location, 3)
    index.known_of.cache_clear()
    gone, read = own.parts()[1].path, Table._read

    def raced(self: Table, part: str, *given: Any) -> Any:
        if location.exists(gone):
            location.rename(gone, f"{gone}.quarantined-1")
        return read(self, part, *given)

    monkeypatch.setattr(Table, "_read", raced)
    assert len(own.read()) == 8
    location.rename(f"{gone}.quarantined-1", gone)
    index.known_of.cache_clear()
    asked: dict[str, Any] = {
        "plan": lambda: [own.plan(keys, 9).before.missing, own.plan(keys, 9).todo],
        "completeness": lambda: [own.completeness(keys).missing] * 2,
        "read": lambda: [12 - len(own.read())] * 2,
        "rows_by_status": lambda: [12 - own.rows_by_status()["ok"]] * 2,
        "usable": lambda: [12 - len(own.usable(keys))] * 2,
    }
    assert asked[what]() == [4, 4]
