"""Mapped galleries: whatever happens to a matrix, the vectors are those of the table."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from deployments.cli import main
from storage.locations.location import Location
from storage.tables.matrices import Matrix, fault_of, matrix_path
from storage.tables.plans import DerivedKeys
from storage.tables.table import IncompleteTable, Table, open_table
from tasks.galleries import features_of, mapped, matrix_homes, open_gallery


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


KEYS = sorted(hashlib.sha256(str(n).encode()).hexdigest() for n in range(30))
VECTORS = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Thirty vectors in parts of seven."""
    return filled(Location(str(tmp_path / "root")))


def filled(location: Location, count: int = 30) -> Table:
    spec = {"producer": "cirflow/image_features/1", "dim": 4, "dtype": "float32"}
    table = open_table(location, "image_features", spec)
    vector = dict(zip(KEYS, VECTORS, strict=True))
    for shard in table.plan(KEYS[:count], 7).shards:
        rows = np.stack([vector[member] for member in shard.members])
        table.publish(shard, table.rows(image_id=list(shard.members), vector=rows))
    return table


def is_right(matrix: Matrix, count: int = 30) -> bool:
    keys = [key.decode() for key in matrix.keys]
    return keys == KEYS[:count] and bool((matrix.vectors == VECTORS[:count]).all())


def test_rows_come_in_the_order_asked_for(table: Table) -> None:
    wanted = [KEYS[i] for i in (4, 2, 29, 2)]
    assert (np.asarray(features_of(table, wanted)) == VECTORS[[4, 2, 29, 2]]).all()
    assert features_of(table, KEYS).places is None
    with pytest.raises(IncompleteTable, match="no ok row for 1 of 1 key"):
        features_of(table, [KEYS[3], "f" * 64])


class Planned:
    """What a gallery asks of a stage; `made` counts how often its keys were read."""

    def __init__(self, table: Table, count: int) -> None:
        self.table, self.count = table, count
        self.made: list[int] = []

    def existing_table(self) -> Table:
        return self.table

    def planned_keys(self) -> DerivedKeys:
        return DerivedKeys(f"the first {self.count}", functools.cache(self._keys))

    def _keys(self) -> list[str]:
        self.made.append(self.count)
        return KEYS[: self.count]


@pytest.mark.parametrize("count", [30, 21])
def test_a_gallery_holds_the_planned_images_alone(table: Table, count: int) -> None:
    stage = Planned(table, count)
    stages: Any = {"image": stage, "captions": stage}
    for made in ([count], [] if count == 30 else [count]):  # the second time by a receipt
        stage.made.clear()
        opened = open_gallery(stages, stages, 0.0)
        assert opened.ids(range(len(opened.keys))) == KEYS[:count]
        assert (np.asarray(opened.features["image"]) == VECTORS[:count]).all()
        assert opened.size == count
        assert stage.made == made


def halves_of(
    table: Table, monkeypatch: pytest.MonkeyPatch, count: int = 30, fast: bool = True, **search: int
) -> Any:
    from tasks.settings import SearchSettings

    monkeypatch.setattr("models.retrieval.halves.multiplies_halves", lambda: fast)
    stages: Any = {"image": Planned(table, count)}
    opened = open_gallery(stages, ["image"], 0.0, SearchSettings(**search))
    halves = opened.features["image"].halves
    return None if halves is None else halves.vectors


def test_large_galleries_have_halves(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = VECTORS.astype(np.float16)
    for count in (30, 21):
        assert (halves_of(table, monkeypatch, count, halves_above=20) == expected).all()
    (file,) = Path(table.location.join(table.folder)).glob("halves-*")
    for unasked in ({"halves_above": 30}, {"halves_above": 0}, {}):
        assert halves_of(table, monkeypatch, **unasked) is None
    assert halves_of(table, monkeypatch, 4, halves_above=1) is not None
    assert halves_of(table, monkeypatch, 3, halves_above=1) is None  # of thirty
    by_index = {"halves_above": 20, "approximate_above": 20}
    assert halves_of(table, monkeypatch, **by_index) is None
    assert halves_of(table, monkeypatch, fast=False, halves_above=20) is None
    whole = file.read_bytes()
    file.write_bytes(whole[:150] + b"?" + whole[151:])
    assert (halves_of(table, monkeypatch, halves_above=20) == expected).all()
    assert file.read_bytes() == whole


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_halves_lie_in_the_users_cache_or_nowhere(
    table: Table, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A root that holds the matrix has no more room; then the user's cache has none."""
    mapped(table)
    for full, there in ((tmp_path / "root", True), (tmp_path, False)):
        monkeypatch.setattr(
            "storage.locations.stores.LocalStore.create_large", refusing(full, number)
        )
        halves = halves_of(table, monkeypatch, halves_above=20)
        assert (halves is not None) is there
        for file in (tmp_path / "cache/cirflow/matrices").rglob("halves-*.npy"):
            file.unlink()


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOMEM, errno.EMFILE])
@pytest.mark.parametrize("name", ["fault_of", "map_halves"])
def test_a_search_does_without_halves_that_cannot_be_read(
    table: Table, number: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped(table)

    def broken(*given: Any) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(f"tasks.galleries.{name}", broken)
    assert halves_of(table, monkeypatch, halves_above=20) is None


def test_the_matrix_is_made_and_read_through_once(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks: list[str] = []

    def counted(home: Location, path: str) -> str:
        checks.append(path)
        return fault_of(home, path)

    monkeypatch.setattr("tasks.galleries.fault_of", counted)
    assert is_right(mapped(table))
    monkeypatch.setattr(Table, "iter_parts", None)  # the parts are not read again
    assert is_right(mapped(table))
    assert checks == [matrix_path(table)]


@pytest.mark.parametrize("size", [0, 40, 200, 700])
def test_a_damaged_matrix_is_made_again(table: Table, size: int) -> None:
    mapped(table)
    (path,) = table.location.local_path(table.folder).glob("matrix-*")  # type: ignore[union-attr]
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    assert is_right(mapped(table))
    path.write_bytes(whole[:size] + b"?" + whole[size + 1 :])
    assert is_right(mapped(table))
    assert path.read_bytes() == whole


def test_an_outdated_matrix_is_made_again(tmp_path: Path) -> None:
    location = Location(str(tmp_path / "root"))
    assert is_right(mapped(filled(location, 14)), 14)
    assert is_right(mapped(filled(location)))


def refusing(root: Path, number: int) -> Callable[..., bool]:
    from storage.locations.stores import LocalStore

    create = LocalStore.create_large

    def create_large(self: LocalStore, path: str, write: Callable[[BinaryIO], None]) -> bool:
        if self.root.is_relative_to(root):
            raise OSError(number, "no", path)
        return create(self, path, write)

    return create_large


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_root_that_takes_no_file_has_its_matrix_in_the_users_cache(
    table: Table, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "storage.locations.stores.LocalStore.create_large", refusing(tmp_path / "root", number)
    )
    assert is_right(mapped(table))
    (file,) = (tmp_path / "cache/cirflow/matrices").rglob("matrix-*.npy")
    monkeypatch.setattr(Table, "iter_parts", None)
    assert is_right(mapped(table))
    assert file.stat().st_size > VECTORS.nbytes


def test_without_any_place_the_vectors_are_held_in_memory(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").mkdir(exist_ok=True)
    monkeypatch.setattr("tasks.galleries.matrix_homes", lambda location: iter(()))
    assert is_right(mapped(table))


def test_matrices_of_roots_on_s3_lie_in_the_users_cache(tmp_path: Path) -> None:
    one, other = (list(matrix_homes(Location(f"s3://bucket/{n}"))) for n in ("a", "b"))
    assert [home.is_local for home in one] == [True]
    assert one != other
    assert str(one[0]).startswith(str(tmp_path / "cache/cirflow/matrices"))


def test_matrices_of_other_roots_leave_the_users_cache_after_a_month(
    table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "asked").mkdir()
    cache = tmp_path / "cache/cirflow/matrices"
    kept, gone = (cache / f"{digit * 20}/caption_features/0123456789" for digit in "ab")
    for folder, days in ((kept, 29), (gone, 31)):
        folder.mkdir(parents=True)
        file = folder / f"matrix-{'0' * 20}.npy"
        file.write_bytes(b"vectors")
        os.utime(file, (time.time() - days * 86_400,) * 2)
    (cache / "a note of the user").write_text("is no folder of matrices")
    arguments = ["cache", "clean", "--root", str(tmp_path / "asked")]
    assert main([*arguments, "--dry-run"]) == 0
    assert [len(list(folder.iterdir())) for folder in (kept, gone)] == [1, 1]
    assert main(arguments) == 0
    assert [len(list(folder.iterdir())) for folder in (kept, gone)] == [1, 0]
    assert "1 file older than a day removed" in capsys.readouterr().out


def test_what_a_killed_builder_left_goes_after_a_day(table: Table) -> None:
    staging = Path(table.location.root) / ".staging"
    staging.mkdir(exist_ok=True)
    for name, age in (("dead", 90_000), ("alive", 60)):
        (staging / name).write_bytes(b"half a matrix")
        os.utime(staging / name, (time.time() - age,) * 2)
    assert is_right(mapped(table))
    assert [file.name for file in staging.iterdir()] == ["alive"]
