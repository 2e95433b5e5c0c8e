"""The order in which a worker makes shards, so that workers on one table seldom do the same work.

A worker marks each shard that it begins (``begun/{table}/{spec}/{shard}``: checksums of its keys,
and who makes it). Shards that share a key with a mark come last; before a shard is begun, the rows
that others have published since the plan was made are taken out of it. So workers may cut their
shards in different sizes and orders. A mark is a hint and never a lock: the worker that left it may
be dead, and what it had begun is made by the living in the end.
"""

from __future__ import annotations

import json
import os
import platform
import random
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from storage.locations.damage import MALFORMED
from storage.locations.local_files import OddFile
from storage.locations.location import Entry
from storage.tables.plans import Plan, Shard
from storage.tables.table import Table

SAME_MACHINE_S = 600.0
"""Seconds after which a shard of a living process of this machine is not waited for any longer."""
OTHER_MACHINE_S = 120.0
"""The same for another machine, where it is unknown whether the process lives."""

_ONE_LISTING = 1000
_SHARE_OF_TIME = 0.1


@dataclass(frozen=True)
class Mark:
    """A shard that a worker has begun."""

    members: frozenset[int]
    attempt: int
    process: int = field(default_factory=os.getpid)
    machine: str = field(default_factory=platform.node)

    def touches(self, shard: Shard) -> bool:
        """Whether a shard has a member of the same checksum."""
        same = self.attempt == shard.attempt
        return same and any(zlib.crc32(each.encode()) in self.members for each in shard.members)

    @classmethod
    def of(cls, shard: Shard) -> Mark:
        """The mark that this process leaves."""
        return cls(frozenset(zlib.crc32(each.encode()) for each in shard.members), shard.attempt)

    def text(self) -> bytes:
        """The content of its file."""
        return json.dumps({**asdict(self), "members": sorted(self.members)}).encode()

    def is_waited_for(self, since: float) -> bool:
        """Whether its worker may still be at it, `since` seconds after the mark was left."""
        if self.machine != platform.node():
            return since < OTHER_MACHINE_S
        return since < SAME_MACHINE_S and _lives(self.process)


class Turns:
    """The shards of a plan, one by one as a worker is ready for them."""

    def __init__(self, table: Table, plan: Plan) -> None:
        self._table = table
        self._plan = plan
        self._parts = set(plan.parts)
        self._gone: set[str] = set()
        self._marks: dict[str, tuple[Mark, float]] = {}  # by key and stamp
        self._own: set[str] = set()
        self._stopped = False
        self._looked = self._took = 0.0

    def __iter__(self) -> Iterator[Shard]:
        """Shards in random order; those that others are at come last, and are waited for."""
        for shard in self._all():
            self._begin(shard)
            yield shard
            if self._stopped:
                return

    @property
    def some(self) -> bool:
        """Whether the plan has a shard."""
        return bool(self._plan.shards)

    def stop(self) -> None:
        """Begin no further shard."""
        self._stopped = True

    def _all(self) -> Iterator[Shard]:
        """Shards in turn, each when it may be begun."""
        late = []
        every = range(len(self._plan.shards))
        for number in random.sample(every, len(every)):
            shard = self._plan.shards[number]
            self._look()
            rest = self._rest(shard)
            if rest is not None and self._touching(rest):
                late.append(rest)
            elif rest is not None:
                yield rest
        for shard in late:
            rest = self._awaited(shard)
            if rest is not None:
                yield rest

    def end(self, key: str) -> None:
        """Take back the mark of a shard that is published, or could not be made.

        Its process may live on, and nobody must wait for it if the part is lost later.
        """
        self._table.location.remove(self._path(key))

    def _awaited(self, shard: Shard) -> Shard | None:
        """What is left of a shard once those who were at it have published or died."""
        pause = 0.05
        while True:
            self._look(at_once=True)
            rest = self._rest(shard)
            if rest is None or not any(
                mark.is_waited_for(time.time() - left) for mark, left in self._touching(rest)
            ):
                return rest
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def _begin(self, shard: Shard) -> None:
        """Mark a shard; a mark that somebody left before is written over."""
        self._own.add(shard.key)
        self._parts.add(f"part-{shard.key}.parquet")
        self._table.location.replace(self._path(shard.key), Mark.of(shard).text())

    def _rest(self, shard: Shard) -> Shard | None:
        """A shard without the rows that others have published; None where none is left."""
        if self._gone.isdisjoint(shard.members):
            return shard
        members = [member for member in shard.members if member not in self._gone]
        return Shard.of(members, shard.attempt) if members else None

    def _touching(self, shard: Shard) -> list[tuple[Mark, float]]:
        return [each for each in self._marks.values() if each[0].touches(shard)]

    def _look(self, at_once: bool = False) -> None:
        """Learn what others have published and begun; of many parts, in a tenth of the time."""
        started = time.monotonic()
        many = len(self._parts) > _ONE_LISTING and not at_once
        if many and (started - self._looked) * _SHARE_OF_TIME < self._took:
            return
        for part in self._table.parts():
            name = part.path.rpartition("/")[2]
            if name not in self._parts:
                self._parts.add(name)
                self._gone.update(self._table.keys_of(name))
        before, self._marks = self._marks, {}
        for version, entry in self._others():
            self._marks[version] = before.get(version) or self._mark(entry)
        self._looked = time.monotonic()
        self._took = self._looked - started

    def _others(self) -> Iterator[tuple[str, Entry]]:
        """Marks of others whose part is not there."""
        for entry in self._table.location.entries(f"begun/{self._table.folder}"):
            key = entry.path.rpartition("/")[2]
            if key not in self._own and f"part-{key}.parquet" not in self._parts:
                yield f"{key} {entry.stamp}", entry

    def _mark(self, entry: Entry) -> tuple[Mark, float]:
        """A mark and when it was left; one that does not say its members touches nothing."""
        try:
            said = json.loads(self._table.location.read_bytes(entry.path))
            members = frozenset(int(each) for each in said["members"])
            machine = str(said["machine"])
            mark = Mark(members, int(said["attempt"]), int(said["process"]), machine)
        except (*MALFORMED, KeyError, FileNotFoundError, OddFile):
            mark = Mark(frozenset(), -1)
        return mark, entry.modified

    def _path(self, key: str) -> str:
        return f"begun/{self._table.folder}/{key}"


def _lives(process: int) -> bool:
    """Whether a process is there and not only waits to be reaped by its parent."""
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or a system without /proc
        return True
    return state != "Z"
