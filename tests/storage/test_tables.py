"""One suite for both places; rows are made by hand and compared with plain dictionaries."""

import importlib.metadata
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.locations.location import Location
from storage.tables.keys import content_key
from storage.tables.listing import list_tables
from storage.tables.parts import CorruptPart
from storage.tables.table import (
    Coverage,
    IncompleteTable,
    Plan,
    Shard,
    Shards,
    SpecConflict,
    Table,
    load_table,
    open_table,
    require_complete,
)

SPEC = {"model": "m", "n": 2, "sampling": {"top_p": 0.9}}
KEYS = [f"k{number:02d}" for number in range(10)]


@pytest.fixture
def table(location: Location) -> Table:
    return open_table(location, "captions", SPEC)


def captions(table: Table, members: tuple[str, ...], failed: tuple[str, ...] = ()) -> pa.Table:
    ok = [member not in failed for member in members]
    return table.rows(
        image_id=members,
        captions=[None if m in failed else [f"{m} one", f"{m} two"] for m in members],
        n=[2 if good else None for good in ok],
        raw=[["x"] if good else None for good in ok],
        status=["ok" if good else "engine_error" for good in ok],
        reason=["" if good else "the engine died" for good in ok],
    )


def backfill(table: Table, keys: list[str], size: int = 4, failed: tuple[str, ...] = ()) -> None:
    for shard in table.plan(keys, size).shards:
        assert table.publish(shard, captions(table, shard.members, failed)).published


def damage(table: Table, part: str, keep: int) -> None:
    path = f"{table.folder}/{part}"
    table.location.replace(path, table.location.read_bytes(path)[:keep])


def first_part(table: Table) -> str:
    return table.parts()[0].path.rpartition("/")[2]


# -- identity --------------------------------------------------------------------------------------


def test_the_spec_is_written_once_and_readable(location: Location, table: Table) -> None:
    path = f"captions/{content_key(SPEC)}/spec.json"
    text = location.read_bytes(path).decode()
    assert json.loads(text) == SPEC
    assert text.count("\n") > 4  # indented for people
    stamp = location.stat(path).stamp
    again = open_table(location, "captions", dict(reversed(SPEC.items())))
    assert again == table
    assert location.stat(path).stamp == stamp
    assert load_table(location, "captions", table.spec_key) == table


def test_an_edited_spec_is_a_conflict(location: Location, table: Table) -> None:
    path = f"{table.folder}/spec.json"
    for text in (json.dumps({**SPEC, "n": 3}), "{", '"text"'):
        location.replace(path, text.encode())
        for opened in (
            lambda: open_table(location, "captions", SPEC),
            lambda: load_table(location, "captions", table.spec_key),
        ):
            with pytest.raises(SpecConflict, match=r"spec\.json"):
                opened()


def test_another_spec_is_another_table(location: Location, table: Table) -> None:
    backfill(table, KEYS)
    other = open_table(location, "captions", {**SPEC, "n": 3})
    assert other.plan(KEYS, 4).present == 0
    assert table.plan(KEYS, 4).present == 10


# -- planning --------------------------------------------------------------------------------------


def test_a_plan_cuts_unique_sorted_missing_keys(table: Table) -> None:
    plan = table.plan([*reversed(KEYS), "k03", "k03"], 4)
    assert [shard.members for shard in plan.shards] == [
        ("k00", "k01", "k02", "k03"),
        ("k04", "k05", "k06", "k07"),
        ("k08", "k09"),
    ]
    assert (plan.present, plan.planned) == (0, 10)
    assert plan == table.plan(KEYS, 4)


def test_missing_is_planned_minus_present(table: Table) -> None:
    second = table.plan(KEYS, 4).shards[1]
    table.publish(second, captions(table, second.members))
    resumed = table.plan(KEYS, 4)
    assert resumed == Plan(Shards(4, (KEYS[:4] + KEYS[8:], 0)), Coverage(10, 4, 0, 6))
    assert (resumed.present, resumed.todo, resumed.planned) == (4, 6, 10)
    grown = table.plan([*KEYS, "j"], 4)
    assert [m for shard in grown.shards for m in shard.members] == ["j", *KEYS[:4], *KEYS[8:]]
    assert table.plan(KEYS[5:7], 4) == Plan(Shards(4), Coverage(2, 2, 0, 0))
    assert table.plan([], 4) == Plan(Shards(4), Coverage(0, 0, 0, 0))


def test_a_shard_has_at_least_one_member(table: Table) -> None:
    with pytest.raises(ValueError, match="at least one"):
        table.plan(KEYS, 0)


def test_nothing_missing_costs_one_listing(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    backfill(table, KEYS)
    require_complete(table, KEYS)  # as every run does at its end
    calls: list[str] = []
    for name in ("entries", "exists", "read_bytes", "open_read", "stat", "create"):
        real = getattr(Location, name)

        def counted(self: Location, path: str = "", *, _r: Any = real, _n: str = name) -> Any:
            calls.append(_n)
            return _r(self, path)

        monkeypatch.setattr(Location, name, counted)
    assert table.plan(KEYS, 4).shards == ()
    assert calls.count("entries") == 1
    assert "open_read" not in calls  # no part was opened


def test_a_receipt_does_not_outlive_its_parts(table: Table) -> None:
    backfill(table, KEYS)
    require_complete(table, KEYS)
    table.quarantine(first_part(table))
    assert table.plan(KEYS, 4).present < 10
    assert table.completeness(KEYS).missing > 0


# -- publishing ------------------------------------------------------------------------------------


def test_what_was_published_is_read(table: Table) -> None:
    backfill(table, KEYS, failed=("k05",))
    rows = table.read()
    assert rows["image_id"].to_list() == KEYS
    assert rows.row(3, named=True) == {
        "image_id": "k03", "captions": ["k03 one", "k03 two"], "n": 2, "raw": ["x"],
        "status": "ok", "reason": "",
    }  # fmt: skip
    assert rows.row(5, named=True) == {
        "image_id": "k05", "captions": None, "n": None, "raw": None,
        "status": "engine_error", "reason": "the engine died",
    }  # fmt: skip
    assert table.rows_by_status() == {"ok": 9, "engine_error": 1}


def test_columns_and_keys_select(table: Table) -> None:
    assert table.read().columns == list(table.schema.columns)  # of an empty table too
    backfill(table, KEYS)
    picked = table.read(["n"], ["k09", "k01", "nobody", "k01"])
    assert picked.rows() == [("k01", 2), ("k09", 2)]
    assert table.read([]).columns == ["image_id"]
    with pytest.raises(ValueError, match="no column caption; it has image_id, captions"):
        table.read(["caption"])


def test_streaming_equals_reading(table: Table) -> None:
    backfill(table, KEYS, failed=("k05",))
    retry = table.plan(KEYS, 4, retry_failed=True).shards[0]
    table.publish(retry, captions(table, retry.members))
    streamed = list(table.iter_parts())
    assert len(streamed) == 4
    assert pl.concat(streamed).sort("image_id").equals(table.read())
    some = pl.concat(table.iter_parts(["n"], ["k05", "k00"]))
    assert sorted(some.rows()) == [("k00", 2), ("k05", 2)]


def test_a_part_is_plain_parquet_with_provenance(table: Table) -> None:
    backfill(table, KEYS[:3])
    data = table.location.read_bytes(f"{table.folder}/{first_part(table)}")
    assert pl.read_parquet(data).equals(table.read())
    metadata = pq.read_schema(pa.BufferReader(data)).metadata
    versions = json.loads(metadata[b"cirflow.libraries"])
    assert versions["transformers"] == importlib.metadata.version("transformers")
    footer = json.loads(metadata[b"cirflow"])
    shard = Shard.of(KEYS[:3])
    assert {name: footer[name] for name in ("table", "spec_key", "shard_key", "rows")} == {
        "table": "captions", "spec_key": table.spec_key, "shard_key": shard.key, "rows": 3,
    }  # fmt: skip
    assert footer["producer"]
    assert footer["created"]


def test_rows_are_sorted_whatever_order_they_come_in(table: Table) -> None:
    shard = Shard.of(KEYS[:4])
    table.publish(shard, captions(table, tuple(reversed(shard.members))))
    data = table.location.read_bytes(f"{table.folder}/part-{shard.key}.parquet")
    assert pl.read_parquet(data)["image_id"].to_list() == KEYS[:4]


GOOD = {
    "image_id": ["a", "b"], "captions": [["x"], ["y"]], "n": [1, 1], "raw": [["x"], ["y"]],
    "status": ["ok", "ok"], "reason": ["", ""],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": ["a", "a"]}, "1 without a row"),
        ({"image_id": ["a", "c"]}, "1 that is not a member"),
        ({"status": ["ok", ""]}, "row b"),
        ({"status": ["ok", None]}, "row b"),
        ({"status": ["ok", "rejected"]}, "names its failure and a reason"),
        ({"reason": ["", "but"]}, "'ok' with an empty reason"),
        ({"reason": ["", None]}, "row b"),
        ({"captions": [["x"], None]}, "1 ok row has no captions"),
        ({"n": [1, None]}, "1 ok row has no n"),
    ],
)
def test_rows_that_break_the_rules_are_not_published(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    table = open_table(Location(str(tmp_path)), "captions", SPEC)
    shard = Shard.of(["a", "b"])
    with pytest.raises(ValueError, match=message):
        table.publish(shard, table.rows(**{**GOOD, **change}))
    with pytest.raises(ValueError, match="exactly the columns"):
        table.publish(shard, table.rows(**GOOD).drop_columns(["raw"]))
    assert table.parts() == []


def test_a_vector_that_is_not_finite_is_not_published(tmp_path: Path) -> None:
    table = open_table(Location(str(tmp_path)), "image_features", {"dim": 2, "dtype": "float16"})
    vectors = np.array([[1.0, 2.0], [np.inf, 0.0]])
    with pytest.raises(ValueError, match="not finite"):
        table.publish(Shard.of(["a", "b"]), table.rows(image_id=["a", "b"], vector=vectors))


# -- racing and repeating --------------------------------------------------------------------------


def test_the_second_of_two_equal_parts_loses_and_changes_nothing(table: Table) -> None:
    shard = Shard.of(KEYS[:4])
    first = table.publish(shard, captions(table, shard.members))
    before = table.read()
    second = table.publish(shard, captions(table, shard.members, failed=("k00",)))
    assert (first.published, second.published) == (True, False)
    assert (second.name, second.bytes) == (first.name, first.bytes)
    assert table.read().equals(before)


def test_workers_racing_from_one_state_leave_one_part_a_shard(table: Table) -> None:
    barrier = threading.Barrier(3)
    won: list[str] = []

    def work() -> None:
        shards = table.plan(KEYS, 3).shards
        barrier.wait()
        for shard in shards:
            part = table.publish(shard, captions(table, shard.members))
            won.extend([part.name] if part.published else [])

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [part.path.rpartition("/")[2] for part in table.parts()]
    assert len(won) == 4
    assert table.read()["image_id"].to_list() == KEYS


def test_overlapping_parts_are_read_by_a_fixed_rule(table: Table) -> None:
    # Shards of different states overlap: k00 ok in both, k01 failed in one, k02 failed in both.
    left, right = Shard.of(["k00", "k01", "k02"]), Shard.of(["k00", "k01", "k02", "k03"])
    table.publish(left, captions(table, left.members, failed=("k01", "k02")))
    table.publish(right, captions(table, right.members, failed=("k02",)).set_column(
        2, "n", pa.array([7, 7, None, 7], pa.int32())
    ))  # fmt: skip
    smaller = min(left.key, right.key)
    rows = {row["image_id"]: row for row in table.read().iter_rows(named=True)}
    assert list(rows) == ["k00", "k01", "k02", "k03"]
    assert rows["k00"]["n"] == (2 if left.key == smaller else 7)
    assert (rows["k01"]["status"], rows["k01"]["n"]) == ("ok", 7)
    assert rows["k02"]["status"] == "engine_error"
    streamed = pl.concat(table.iter_parts()).sort("image_id")
    assert streamed.equals(table.read())
    assert table.completeness(KEYS[:4]) == Coverage(planned=4, ok=3, failed=1, missing=0)


def test_failed_rows_are_present_until_a_retry_is_asked_for(table: Table) -> None:
    backfill(table, KEYS, failed=("k01", "k08"))
    assert table.plan(KEYS, 4).shards == ()
    plan = table.plan([*KEYS, "new"], 4, retry_failed=True)
    assert [(shard.members, shard.attempt) for shard in plan.shards] == [
        (("new",), 0),
        (("k01", "k08"), 1),
    ]
    assert (plan.present, plan.planned) == (8, 11)
    retry = plan.shards[1]
    table.publish(retry, captions(table, retry.members, failed=("k08",)))
    last = table.plan(KEYS, 4, retry_failed=True).shards
    assert [(shard.members, shard.attempt) for shard in last] == [(("k08",), 2)]
    assert len({Shard.of(["k08"], attempt).key for attempt in range(3)}) == 3
    table.publish(last[0], captions(table, last[0].members))
    assert table.rows_by_status() == {"ok": 10}
    assert table.plan(KEYS, 4, retry_failed=True).shards == ()


# -- completeness ----------------------------------------------------------------------------------


def test_completeness_counts_and_the_threshold_is_exact(table: Table) -> None:
    backfill(table, KEYS[:8], failed=("k02",))
    coverage = Coverage(planned=10, ok=7, failed=1, missing=2)
    assert table.completeness(KEYS) == coverage
    assert coverage.gaps == pytest.approx(0.3)
    assert require_complete(table, KEYS, allow_gaps=0.3) == coverage
    with pytest.raises(IncompleteTable) as refusal:
        require_complete(table, KEYS, allow_gaps=0.29)
    message = str(refusal.value)
    for part in ("3 of 10", "k02 (engine_error: the engine died)", "k08 (missing)", "backfill"):
        assert part in message
    for fraction in (-0.1, 1.1):
        with pytest.raises(ValueError, match="within 0 and 1"):
            require_complete(table, KEYS, fraction)


def test_failed_rows_are_gaps_after_a_receipt_too(table: Table) -> None:
    backfill(table, KEYS, failed=("k02",))
    for _ in range(2):
        with pytest.raises(IncompleteTable, match="1 of 10"):
            require_complete(table, KEYS)
    assert require_complete(table, [], 0.0).gaps == 0.0


# -- vectors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_vectors_come_in_the_order_of_the_keys(location: Location, dtype: str) -> None:
    table = open_table(location, "caption_features", {"dim": 5, "dtype": dtype})
    rng = np.random.default_rng(0)
    truth = {key: rng.normal(size=5).astype(dtype) for key in KEYS}
    for shard in table.plan(KEYS, 4).shards:
        table.publish(
            shard,
            table.rows(
                image_id=shard.members,
                vector=np.stack([truth[m] for m in shard.members]),
                n_captions=[15] * len(shard.members),
                status=["ok" if m != "k04" else "decode_error" for m in shard.members],
                reason=["" if m != "k04" else "cut off" for m in shard.members],
            ),
        )
    asked = ["k09", "k00", "k05", "k00"]
    found = table.vectors(asked)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.stack([truth[key] for key in asked]))
    assert table.vectors([]).shape == (0, 5)
    assert table.read(["vector"]).schema["vector"].shape == (5,)
    with pytest.raises(IncompleteTable, match=r"2 of 3 keys.*k04 \(decode_error: cut off\)"):
        table.vectors(["k04", "k01", "nobody"])
    with pytest.raises(ValueError, match="not a column of vectors"):
        table.vectors(["k01"], column="n_captions")


# -- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 5, 200, -1, -40])
def test_a_truncated_part_is_named_with_its_remedy(table: Table, keep: int) -> None:
    backfill(table, KEYS)
    before = table.read()
    part = first_part(table)
    damage(table, part, keep)
    for use in (table.read, lambda: table.plan(KEYS, 4), lambda: list(table.iter_parts())):
        with pytest.raises(CorruptPart, match=rf"{part} is broken.*cache repair"):
            use()
    assert [problem.part for problem in table.verify()] == [part]
    # The remedy works: nothing is deleted, only the lost rows are planned, all is as before.
    aside = table.quarantine(part)
    assert table.location.exists(f"{table.folder}/{aside}")
    plan = table.plan(KEYS, 4)
    assert [f"part-{shard.key}.parquet" for shard in plan.shards] == [part]
    backfill(table, KEYS)
    assert table.read().equals(before)
    assert table.verify() == []
    assert table.quarantine(part) != aside


def test_a_receipt_does_not_hide_a_truncated_part(table: Table) -> None:
    backfill(table, KEYS)
    require_complete(table, KEYS)
    damage(table, first_part(table), 300)
    with pytest.raises(CorruptPart):
        table.plan(KEYS, 4)


def test_every_flipped_bit_of_a_page_is_found(tmp_path: Path) -> None:
    table = open_table(Location(str(tmp_path)), "image_features", {"dim": 64, "dtype": "float32"})
    shard = Shard.of(KEYS)
    vectors = np.random.default_rng(0).normal(size=(10, 64))
    part = table.publish(shard, table.rows(image_id=shard.members, vector=vectors)).name
    path = tmp_path / table.folder / part
    good = path.read_bytes()
    pages = pq.ParquetFile(path).metadata.row_group(0).column(1)
    start, length = pages.data_page_offset, pages.total_compressed_size
    for offset in range(start + 60, start + length, 97):
        broken = bytearray(good)
        broken[offset] ^= 1
        path.write_bytes(broken)
        assert [problem.part for problem in table.verify()] == [part]


def test_losing_to_a_broken_part_is_an_error(table: Table) -> None:
    shard = Shard.of(KEYS[:4])
    table.publish(shard, captions(table, shard.members))
    damage(table, first_part(table), -9)
    with pytest.raises(CorruptPart, match="cache repair"):
        table.publish(shard, captions(table, shard.members))


def test_a_part_of_another_table_or_name_is_a_problem(location: Location, table: Table) -> None:
    backfill(table, KEYS[:4])
    part = first_part(table)
    data = location.read_bytes(f"{table.folder}/{part}")
    renamed = f"part-{'0' * 20}.parquet"
    location.create(f"{table.folder}/{renamed}", data)
    assert [problem.part for problem in table.verify()] == [renamed]
    other = open_table(location, "captions", {**SPEC, "n": 3})
    location.create(f"{other.folder}/{part}", data)
    with pytest.raises(CorruptPart, match="belongs to captions/"):
        other.read()
    foreign = pa.BufferOutputStream()
    pq.write_table(pa.table({"image_id": ["a"], "status": ["ok"]}), foreign)
    third = open_table(location, "captions", {**SPEC, "n": 4})
    location.create(f"{third.folder}/{part}", foreign.getvalue().to_pybytes())
    with pytest.raises(CorruptPart, match="no provenance"):
        third.read()


def test_only_parts_are_quarantined(table: Table) -> None:
    for name in ("spec.json", "../part-00000000.parquet", "part-xyz.parquet"):
        with pytest.raises(ValueError, match="name of a part"):
            table.quarantine(name)


def test_files_of_others_in_the_folder_are_not_parts(location: Location, table: Table) -> None:
    backfill(table, KEYS)
    for name in ("part-00000000.parquet.tmp", "notes.txt", "sub/part-00000000.parquet"):
        location.create(f"{table.folder}/{name}", b"not ours")
    assert table.read()["image_id"].to_list() == KEYS
    assert table.verify() == []


# -- inventory -------------------------------------------------------------------------------------


def test_the_inventory_counts_parts_rows_and_bytes(location: Location, table: Table) -> None:
    assert [info.rows for info in list_tables(location)] == [0]
    backfill(table, KEYS)
    features = open_table(location, "image_features", {"dim": 2, "dtype": "float32"})
    shard = Shard.of(["a"])
    size = features.publish(shard, features.rows(image_id=["a"], vector=np.eye(1, 2))).bytes
    damage(table, first_part(table), 100)
    captions_info, features_info = list_tables(location)
    assert (captions_info.name, captions_info.parts, captions_info.unreadable) == ("captions", 3, 1)
    assert captions_info.rows < 10
    assert captions_info.spec == SPEC
    assert (features_info.rows, features_info.bytes, features_info.unreadable) == (1, size, 0)
