"""S3 answers that are cut or changed on the way are fetched again, and named if that is no help."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import fsspec
import pytest

from storage.checks.root import check_root
from storage.locations.location import CutRead, Location
from storage.tables.table import CorruptPart, Shard, SpecConflict, Table, load_table, open_table
from tests.fakes.faulty_s3 import Fault, Faults, faulty_proxy


@pytest.fixture(scope="module")
def faults(s3_server: str) -> Iterator[Faults]:
    """The faults of the server that the environment names."""
    s3fs = pytest.importorskip("s3fs")
    with faulty_proxy(s3_server) as (address, faults), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        yield faults
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def table(faults: Faults) -> Table:
    """A table with one part."""
    faults.left = 0
    bucket = f"test-{uuid.uuid4().hex}"
    fsspec.filesystem("s3", use_listings_cache=False).mkdir(bucket)
    table = open_table(Location(f"s3://{bucket}/root"), "captions", {"producer": "test"})
    shard = Shard.of([f"image-{number}" for number in range(500)])
    texts = [[f"a caption of {member}"] for member in shard.members]
    columns = {"n": [1] * 500, "status": ["ok"] * 500, "reason": [""] * 500}
    rows = table.rows(image_id=shard.members, captions=texts, raw=texts, **columns)
    table.publish(shard, rows)
    return table


def spoil(faults: Faults, kind: Fault, times: int, suffix: str = ".parquet") -> None:
    faults.kind, faults.left, faults.suffix, faults.spoilt = kind, times, suffix, 0


@pytest.mark.parametrize("checksums", [True, False])
@pytest.mark.parametrize("kind", ["cut", "flip"])
def test_an_answer_that_is_spoilt_once_is_fetched_again(
    table: Table, faults: Faults, kind: Fault, checksums: bool
) -> None:
    faults.checksums = checksums
    expected = table.read()
    spoil(faults, kind, 1)
    assert table.read().equals(expected)
    assert faults.spoilt == 1
    spoil(faults, kind, 1, "spec.json")
    assert load_table(table.location, "captions", table.spec_key).spec == table.spec
    assert faults.spoilt == 1


def test_an_answer_that_is_always_cut_is_a_lost_connection_with_the_name_of_the_part(
    table: Table, faults: Faults
) -> None:
    from tasks.stages.run import TRANSIENT

    part = table.location.join(table.parts()[0].path)
    spoil(faults, "cut", 10_000)
    with pytest.raises(CutRead, match=f"{part} did not come whole") as caught:
        table.read()
    assert isinstance(caught.value, TRANSIENT)  # which is what a task retries
    assert faults.spoilt > 1


def test_a_byte_that_is_always_changed_is_a_broken_part_with_its_name(
    table: Table, faults: Faults
) -> None:
    path = table.parts()[0].path
    spoil(faults, "flip", 10_000)
    faults.checksums = True
    with pytest.raises(CutRead, match=r"did not come whole.*checksum"):
        table.read()
    (fault,) = check_root(table.location).faults
    assert (fault.path, fault.mend()) == (path, "left as it is")  # the object may be whole
    faults.checksums = False  # a server that sends none
    with pytest.raises(CorruptPart, match=f"{table.location.join(path)} is broken.*cache repair"):
        table.read()
    assert faults.spoilt >= 3
    found = check_root(table.location).faults
    assert [fault.path for fault in found] == [path]
    spoil(faults, "flip", 10_000, "spec.json")
    with pytest.raises(SpecConflict, match=r"spec\.json"):
        load_table(table.location, "captions", table.spec_key)


def test_a_check_is_not_misled_by_one_spoilt_answer(table: Table, faults: Faults) -> None:
    spoil(faults, "flip", 1)
    assert check_root(table.location).faults == []
    assert faults.spoilt == 1
