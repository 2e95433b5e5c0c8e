"""Plans and vectors of large tables against the naive form, with peak memory.

The naive form reads every part and goes through its keys one by one, in lists and dictionaries.
Every figure is of a fresh process: processor seconds of the work alone, and its highest resident
size, libraries included. Keys are random, vectors have 16 numbers, a part has 512 rows and a row of
a hundred is missing from the table. `bench.million` measures whole commands.

    python -m bench.tables [--sizes 10000 100000] [--root FOLDER]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.command_line import command_line, whole_number
from bench.verdict import Verdict, exit_status, report
from storage.locations.location import Location
from storage.tables.footers import Footer, footer_metadata
from storage.tables.plans import DerivedKeys, Shard
from storage.tables.table import Table, open_table

SIZES: Final = (10_000, 100_000, 1_000_000)
PLANNED: Final = 10_000_000
DIM: Final = 16
SHARD: Final = 512
ALLOWED_RATIO: Final = 1.25  # ours checks every page and every footer, the naive form nothing
PLAN_BYTES: Final = 2 * 2**30


def random_keys(count: int, seed: int = 0) -> pl.Series:
    """(count,) texts of 64 hexadecimal digits, sorted."""
    chosen = np.random.default_rng(seed)
    blocks = [
        pl.Series("key", _hashes(chosen.bytes(32 * size))).bin.encode("hex")
        for size in (min(10**6, count - start) for start in range(0, count, 10**6))
    ]
    return pl.concat(blocks).sort()


def _hashes(data: bytes) -> pa.Array:
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(32), len(data) // 32, [None, pa.py_buffer(data)]
    ).cast(pa.binary())


def leave_part(table: Table, members: Sequence[str], rows: pa.Table) -> None:
    """Write a part as `Table.publish` does, without its checks and without waiting for the disk."""
    shard = Shard.of(members)
    footer = Footer(table.name, table.spec_key, shard.key, 0, len(members), 1.0)
    path = Path(table.location.join(f"{table.folder}/part-{shard.key}.parquet"))
    described = rows.replace_schema_metadata(footer_metadata(footer, None, table.spec))
    small = [field.name for field in rows.schema if pa.types.is_string(field.type)]
    pq.write_table(
        described, path, compression="zstd", use_dictionary=small, write_page_checksum=True
    )


def feature_table(root: str, count: int) -> Table:
    """The table of `build`."""
    spec = {"dim": DIM, "dtype": "float32", "producer": "bench", "count": count}
    return open_table(Location(root), "image_features", spec)


def build(root: str, count: int) -> None:
    """A table of the first 99 of every 100 keys, in parts that follow another order than theirs."""
    table, keys = feature_table(root, count), random_keys(count)
    held = keys.gather(np.flatnonzero(np.arange(count) % 100)).sample(fraction=1, shuffle=True)
    vectors = np.random.default_rng(1).random((len(held), DIM), dtype=np.float32)
    for start in range(0, len(held), SHARD):
        members = held[start : start + SHARD].sort().to_list()
        rows = table.rows(image_id=members, vector=vectors[start : start + len(members)])
        leave_part(table, members, rows)


# --------------------------------------------------------------------------- both forms


def naive_plan(table: Table, keys: Sequence[str], size: int = SHARD) -> list[Shard]:
    """Read every part's keys into a set, and go through the planned keys."""
    present: set[str] = set()
    for part in table.parts():
        rows = pq.read_table(table.location.join(part.path), columns=["image_id", "status"])
        present.update(row["image_id"] for row in rows.to_pylist())
    missing = [key for key in sorted(set(keys)) if key not in present]
    return [Shard.of(missing[i : i + size]) for i in range(0, len(missing), size)]


def naive_vectors(table: Table, keys: Sequence[str]) -> np.ndarray:
    """Read every part, and put each row where its key is asked for."""
    place = {key: row for row, key in enumerate(keys)}
    dim = table.spec["dim"]
    out = np.empty((len(keys), dim), np.float32)
    for part in table.parts():
        rows = pq.read_table(table.location.join(part.path)).filter(pc.field("status") == "ok")
        vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(-1, dim)
        for key, vector in zip(rows["image_id"].to_pylist(), vectors, strict=True):
            if key in place:
                out[place[key]] = vector
    return out


def plan(table: Table, keys: pl.Series, naive: bool) -> list[str]:
    """The names of the shards of a plan where one row of a hundred is missing."""
    if naive:
        return [shard.key for shard in naive_plan(table, keys.to_list())]
    made = table.plan(DerivedKeys("bench", lambda: keys), SHARD)  # type: ignore[arg-type,return-value]
    return [shard.key for shard in made.shards]


def vectors(table: Table, keys: pl.Series, naive: bool) -> float:
    """A sum over the vectors of all keys that have one, in random order."""
    asked = keys.gather(np.flatnonzero(np.arange(len(keys)) % 100)).shuffle(seed=2)
    found = naive_vectors(table, asked.to_list()) if naive else table.vectors(asked)  # type: ignore[arg-type]
    return float((found.sum(1, dtype=np.float64) * np.arange(len(found))).sum())


def plan_fresh(table: Table, keys: pl.Series, naive: bool) -> int:
    """The number of shards where no row is there yet."""
    assert not naive
    made = table.plan(DerivedKeys("bench", lambda: keys), SHARD)  # type: ignore[arg-type,return-value]
    assert made.shards[0].members[0] == keys[0]
    return len(made.shards)


WORK: Final[dict[str, Callable[[Table, pl.Series, bool], Any]]] = {
    "plan": plan,
    "vectors": vectors,
    "plan_fresh": plan_fresh,
}


def measured(work: str, root: str, count: int, naive: bool = False) -> dict[str, Any]:
    """Run some work in a fresh process: its result, processor seconds and peak bytes."""
    words = ["--one", work, "--root", root, "--sizes", str(count), *(["--naive"] if naive else [])]
    done = subprocess.run(
        [sys.executable, "-m", "bench.tables", *words],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return dict(json.loads(done.stdout))


def print_one(work: str, root: str, count: int, naive: bool) -> None:
    """The fresh process."""
    if work == "build":
        build(root, count)
        print("{}")
        return
    table, keys = feature_table(root, count), random_keys(count)
    started = time.process_time()
    result = WORK[work](table, keys, naive)
    seconds = time.process_time() - started
    # not ru_maxrss here: after fork and exec that still holds the parent's peak
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
    print(json.dumps({"seconds": seconds, "peak": peak, "result": result}))


# --------------------------------------------------------------------------- verdicts


def compared(work: str, root: str, count: int) -> Verdict:
    """Ours against the naive form at one size."""
    naive, own = measured(work, root, count, naive=True), measured(work, root, count)
    ratio = naive["seconds"] / own["seconds"]
    same = own.pop("result") == naive.pop("result")
    good = same and own["seconds"] <= ALLOWED_RATIO * naive["seconds"]
    return report(
        f"table_{work}_{count}",
        f"{work} of {count:,} keys: {own['seconds']:.2f} s and {own['peak'] / 2**20:.0f} MiB, the "
        f"naive form {naive['seconds']:.2f} s and {naive['peak'] / 2**20:.0f} MiB ({ratio:.1f}x)",
        "ok" if good else "MISSED",
        {"ratio": ratio, "same": same, "own": own, "naive": naive},
    )


def main(sizes: Sequence[int], folder: str) -> list[Verdict]:
    """Measure each size, then the plan of ten million keys."""
    verdicts = []
    for count in sizes:
        root = f"{folder}/features-{count}"
        measured("build", root, count)
        verdicts += [compared(work, root, count) for work in ("plan", "vectors")]
    fresh = measured("plan_fresh", f"{folder}/fresh", PLANNED)
    verdicts.append(
        report(
            "table_plan_fresh",
            f"plan of {PLANNED:,} keys, no row there: {fresh['seconds']:.1f} s and "
            f"{fresh['peak'] / 2**20:.0f} MiB (allowed {PLAN_BYTES / 2**20:.0f} MiB)",
            "ok" if fresh["peak"] <= PLAN_BYTES else "MISSED",
            fresh,
        )
    )
    return verdicts


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument(
        "--sizes", nargs="+", type=whole_number, default=SIZES, help="keys of the tables"
    )
    parser.add_argument("--root", default="", help="the folder of a temporary one")
    parser.add_argument("--one", choices=("build", *WORK), help=argparse.SUPPRESS)
    parser.add_argument("--naive", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print_one(given.one, given.root, given.sizes[0], given.naive)
    else:
        with tempfile.TemporaryDirectory(dir=given.root or None) as made:
            sys.exit(exit_status(main(given.sizes, made)))
