"""Ingest of folders and S3 prefixes: every input one row, whatever is wrong with it."""

import hashlib
import os
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from storage.collections import writer as ingest_writer
from storage.collections.collection import Collection, IngestSummary, NothingUsable, ingest
from storage.collections.known import UnknownCollection, list_collections
from storage.collections.sources import files as source_files
from storage.locations.location import Location
from storage.tables.listing import list_tables
from storage.tables.table import CorruptPart, IncompleteTable
from tests.fakes.pictures import broken_files, jpeg, png, png_header


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six images, two of them equal, in two classes and at the top."""
    root = tmp_path / "source"
    for path, data in {
        "cat/1.jpg": jpeg(1),
        "cat/deep/er/2.jpg": jpeg(2),
        "dog/3.png": png(3),
        "dog/again.jpg": jpeg(1),
        "top.jpeg": jpeg(4),
        "wrongly-named.png": jpeg(5),
    }.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return root


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def statuses(collection: Collection) -> dict[str, str]:
    rows = collection.rows()
    return dict(zip(rows["path"], rows["status"], strict=True))


def test_the_inputs_of_some_images_are_found(location: Location, folder: Path) -> None:
    ingest(location, folder, "pets")
    (folder / "top.jpeg").rename(folder.parent / "alone.jpeg")
    ingest(location, folder.parent, "others")
    collection = Collection.open(location, "pets")
    wanted = [sha(jpeg(1)), sha(jpeg(4)), "f" * 64]
    found = {
        wanted[0]: (str(folder / "cat/1.jpg"), str(folder / "dog/again.jpg")),
        wanted[1]: (str(folder / "top.jpeg"),),
        wanted[2]: (),
    }
    assert collection.paths_of(wanted) == found
    assert collection.paths().find(wanted) == found
    assert collection.paths().images == len(collection.image_ids())
    assert collection.paths_of([]) == {}


def test_a_name_stands_for_some_image_or_stays_as_it_was(location: Location, folder: Path) -> None:
    empty, broken = folder.parent / "empty", folder.parent / "broken"
    empty.mkdir()
    broken.mkdir()
    (broken / "a.jpg").write_bytes(b"no picture")
    for source, said in (
        (empty, r"empty is empty; the collection 'pets' was not made"),
        (broken, r"no input in .*a\.jpg: not_an_image, .*'pets' was not made"),
    ):
        with pytest.raises(NothingUsable, match=said) as refused:
            ingest(location, source, "pets")
        assert refused.value.summary.images == 0
    assert list_collections(location) == []
    before = ingest(location, folder, "pets").listing
    for source, taken in ((broken, "replace"), (broken, "add"), (empty, "replace")):
        with pytest.raises(NothingUsable, match="'pets' stays as it was"):
            ingest(location, source, "pets", if_taken=taken)
    aside = folder.parent / "aside"
    folder.rename(aside)  # as a disk that is not mounted
    folder.mkdir()
    with pytest.raises(NothingUsable, match="'pets' stays as it was"):
        ingest(location, folder, "pets")
    assert Collection.open(location, "pets").listing == before


def test_a_folder_becomes_a_collection(location: Location, folder: Path) -> None:
    summary = ingest(location, folder, "pets")
    assert (summary.files, summary.images, summary.duplicates) == (6, 5, 1)
    assert (summary.new_files, summary.new_images, summary.failed) == (6, 5, {})
    collection = Collection.open(location, "pets")
    rows = {row["path"]: row for row in collection.rows().iter_rows(named=True)}
    assert {path: row["meta_class"] for path, row in rows.items()} == {
        "cat/1.jpg": "cat",
        "cat/deep/er/2.jpg": "cat",
        "dog/3.png": "dog",
        "dog/again.jpg": "dog",
        "top.jpeg": "",
        "wrongly-named.png": "",
    }
    for path, row in rows.items():
        assert row["image_id"] == sha((folder / path).read_bytes())
        assert row["bytes"] == (folder / path).stat().st_size
        assert (row["width"], row["height"]) == (30, 20)
    assert rows["wrongly-named.png"]["format"] == "JPEG"
    assert collection.image_ids() == sorted({row["image_id"] for row in rows.values()})


def test_images_come_back_byte_for_byte(location: Location, folder: Path) -> None:
    ingest(location, folder, "pets", part_rows=2)
    collection = Collection.open(location, "pets")
    originals = {sha(path.read_bytes()): path.read_bytes() for path in folder.rglob("*.*g")}
    images = list(collection.read_images([*collection.image_ids(), sha(jpeg(1))]))
    assert len(images) == 5
    assert dict(images) == originals
    assert dict(collection.read_images([sha(png(3))])) == {sha(png(3)): png(3)}
    with pytest.raises(IncompleteTable, match=r"1 image is not stored, first ab"):
        list(collection.read_images([sha(png(3)), "ab" * 32]))


def test_reading_a_few_images_reads_few_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(40):  # the decoders ignore what follows the end of a JPEG
        (source / f"{number}.jpg").write_bytes(jpeg(number) + bytes([number]) * 200_000)
    location = Location(str(tmp_path / "root"))
    ingest(location, source, "large")
    collection = Collection.open(location, "large")
    one = collection.image_ids()[17]
    list(collection.read_images([one]))  # which image lies where is now known
    spans: list[tuple[str, int, int]] = []
    real = Location.read_spans

    def counted(self: Location, asked: Sequence[tuple[str, int, int]]) -> list[bytes]:
        spans.extend(asked)
        return real(self, asked)

    monkeypatch.setattr(Location, "read_spans", counted)
    monkeypatch.setattr(pa, "OSFile", None)  # nothing else is opened
    ((_, data),) = collection.read_images([one])
    assert sha(data) == one
    ((_, start, end),) = spans
    assert end - start == len(data)  # its own bytes, of eight million


def test_ingesting_again_reads_only_what_changed(
    location: Location, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ingest(location, folder, "pets")
    read: list[str] = []
    real = Location.read_bytes

    def recorded(self: Location, path: str) -> bytes:
        if self.root == str(folder):
            read.append(path)
        return real(self, path)

    monkeypatch.setattr(Location, "read_bytes", recorded)
    again = ingest(location, folder, "pets")
    assert read == []
    assert (again.new_files, again.new_images, again.new_bytes) == (0, 0, 0)
    assert again.listing == first.listing

    (folder / "dog" / "new.jpg").write_bytes(jpeg(9))
    (folder / "cat" / "1.jpg").write_bytes(jpeg(10))
    (folder / "top.jpeg").unlink()
    third = ingest(location, folder, "pets")
    assert sorted(read) == ["cat/1.jpg", "dog/new.jpg"]
    assert (third.files, third.images, third.new_files, third.new_images) == (6, 6, 2, 2)
    assert set(statuses(Collection.open(location, "pets"))) == {
        "cat/1.jpg", "cat/deep/er/2.jpg", "dog/3.png", "dog/again.jpg", "dog/new.jpg",
        "wrongly-named.png",
    }  # fmt: skip


def test_a_photo_in_two_collections_is_stored_once(
    location: Location, folder: Path, tmp_path: Path
) -> None:
    ingest(location, folder, "pets")
    other = tmp_path / "other"
    other.mkdir()
    (other / "same.jpg").write_bytes(jpeg(1))
    (other / "new.jpg").write_bytes(jpeg(77))
    summary = ingest(location, other, "more")
    assert (summary.images, summary.new_images) == (2, 1)
    tables = {info.name: info for info in list_tables(location)}
    assert tables["images"].rows == 6
    assert list_collections(location) == ["more", "pets"]
    assert len(dict(Collection.open(location, "more").read_images([sha(jpeg(1))]))) == 1


def test_thirty_broken_files_are_accounted_for_by_name(location: Location, folder: Path) -> None:
    broken = broken_files()
    (folder / "broken").mkdir()
    for name, (data, _) in broken.items():
        (folder / "broken" / name).write_bytes(data)
    summary = ingest(location, folder, "pets")
    expected = {f"broken/{name}": status for name, (_, status) in broken.items()}
    found = statuses(Collection.open(location, "pets"))
    assert {path: status for path, status in found.items() if status != "ok"} == expected
    assert len(expected) == 30
    assert summary.files == 36
    assert summary.images == 5
    assert summary.failed == dict(sorted(Counter(expected.values()).items()))
    rows = Collection.open(location, "pets").rows()
    assert all(rows.filter(status="ok")["reason"] == "")
    assert all(rows.remove(status="ok")["reason"] != "")
    assert rows.remove(status="ok")["image_id"].null_count() == 30


def test_links_pipes_and_odd_names_are_rows(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(jpeg(66))
    (folder / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "outside").symlink_to(tmp_path)
    (folder / "in.jpg").symlink_to(folder / "cat" / "1.jpg")
    (folder / "cats").symlink_to(folder / "cat")
    (folder / "broken.jpg").symlink_to(folder / "nothing.jpg")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe.jpg")
    for name in ("ünï cödé 图.jpg", "new\nline.jpg", "-rf.jpg", "e\u0301.jpg", "é.jpg"):
        (folder / name).write_bytes(jpeg(4))
    (folder / "\x1b[31mred\x07").mkdir()
    (folder / "\x1b[31mred\x07" / "a\x9bb.jpg").write_bytes(jpeg(4))
    with (folder / os.fsdecode(b"latin\xe9.jpg")).open("wb") as file:
        file.write(jpeg(4))
    (folder / ".hidden.jpg").write_bytes(jpeg(8))
    (folder / ".git").mkdir()
    (folder / ".git" / "x.jpg").write_bytes(jpeg(8))
    location = Location(str(tmp_path / "root"))
    summary = ingest(location, folder, "pets")
    found = statuses(Collection.open(location, "pets"))
    assert {path: status for path, status in found.items() if status != "ok"} == {
        "out.jpg": "outside_source",
        "outside": "outside_source",
        "cats": "linked_folder",
        "broken.jpg": "unreadable",
        "loop": "unreadable",
        "pipe.jpg": "not_a_file",
    }
    assert {"in.jpg", "ünï cödé 图.jpg", "new\nline.jpg", "latin\\xe9.jpg", "e\u0301.jpg"} <= (
        found.keys()
    )
    assert found["\\x1b[31mred\\x07/a\\x9bb.jpg"] == "ok"
    assert not any("hidden" in path or ".git" in path for path in found)
    assert sha(jpeg(66)) not in Collection.open(location, "pets").image_ids()
    assert ingest(location, folder, "pets").new_files == 0
    assert summary.files == 6 + 7 + 7


def test_a_file_that_cannot_be_read_is_a_row_and_tried_again(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Location.read_bytes

    def denied(self: Location, path: str) -> bytes:
        if path == "cat/1.jpg":
            raise PermissionError(13, "Permission denied")
        return real(self, path)

    location = Location(str(tmp_path / "root"))
    with monkeypatch.context() as patch:
        patch.setattr(Location, "read_bytes", denied)
        for _ in range(2):
            summary = ingest(location, folder, "pets")
            assert summary.failed == {"unreadable": 1}
            assert summary.files == 6
        assert summary.new_files == 0
    rows = Collection.open(location, "pets").rows()
    assert rows.filter(path="cat/1.jpg")["reason"].to_list() == ["Permission denied"]
    # The permission came back; path, size and time are the same as before.
    summary = ingest(location, folder, "pets")
    assert (summary.files, summary.failed, summary.new_files) == (6, {}, 1)


def test_a_folder_that_cannot_be_listed_is_a_row(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def denied(path: Path) -> object:
        if Path(path).name == "cat":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(source_files.os, "scandir", denied)
    location = Location(str(tmp_path / "root"))
    summary = ingest(location, folder, "pets")
    assert (summary.files, summary.failed) == (5, {"unreadable": 1})
    assert statuses(Collection.open(location, "pets"))["cat"] == "unreadable"


def test_limits_are_rows_and_part_of_the_identity(tmp_path: Path, folder: Path) -> None:
    location = Location(str(tmp_path / "root"))
    (folder / "big.png").write_bytes(png_header(500, 500))
    size = (folder / "dog" / "3.png").stat().st_size
    summary = ingest(location, folder, "pets", max_pixels=1000, max_file_bytes=size)
    found = statuses(Collection.open(location, "pets"))
    assert found["big.png"] == "too_many_pixels"
    assert found["dog/3.png"] == "ok"
    assert found["cat/1.jpg"] == ("too_large" if len(jpeg(1)) > size else "ok")
    generous = ingest(location, folder, "pets")
    assert generous.failed != summary.failed
    assert statuses(Collection.open(location, "pets"))["cat/1.jpg"] == "ok"


def test_parts_are_bounded_and_any_size_gives_the_same_collection(
    tmp_path: Path, folder: Path
) -> None:
    listings, contents = set(), []
    for number, (part_bytes, part_rows) in enumerate([(1, 4096), (2**26, 1), (2**26, 4096)]):
        location = Location(str(tmp_path / f"root{number}"))
        summary = ingest(location, folder, "pets", part_bytes=part_bytes, part_rows=part_rows)
        collection = Collection.open(location, "pets")
        listings.add(summary.listing)
        contents.append(dict(collection.read_images(collection.image_ids())))
        assert len(collection.images.parts()) == (1 if number == 2 else 5)
    assert len(listings) == 1
    assert contents[0] == contents[1] == contents[2]


def test_two_ingests_racing(location: Location, folder: Path) -> None:
    for number in range(20):
        (folder / "dog" / f"{number}.jpg").write_bytes(jpeg(100 + number))
    barrier = threading.Barrier(2)

    def work(name: str) -> IngestSummary:
        barrier.wait()
        return ingest(location, folder, name, part_rows=3)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(work, ["one", "two"])
    assert first.listing == second.listing
    assert (first.files, first.images, first.failed) == (26, 25, {})
    collection = Collection.open(location, "two")
    assert len(collection.rows()) == 26
    assert len(list(collection.read_images(collection.image_ids()))) == 25


def test_killed_anywhere_and_started_again(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop before each publication in turn; the end result is the undisturbed one."""

    class Killed(BaseException):
        pass

    undisturbed = Location(str(tmp_path / "undisturbed"))
    expected = ingest(undisturbed, folder, "pets", part_rows=2)
    location = Location(str(tmp_path / "root"))
    real, left = Location.create, 0

    def create(self: Location, path: str, data: bytes) -> bool:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        return real(self, path, data)

    monkeypatch.setattr(Location, "create", create)
    kills = 0
    for allowed in range(1, 20):
        left = allowed % 3 + 1
        try:
            summary = ingest(location, folder, "pets", part_rows=2)
            break
        except Killed:
            kills += 1
            assert list_collections(location) == []  # it appears as a whole
    monkeypatch.undo()
    assert kills > 2
    assert (summary.files, summary.images, summary.listing) == (6, 5, expected.listing)
    assert (
        Collection.open(location, "pets").rows().equals(Collection.open(undisturbed, "pets").rows())
    )
    images = Collection.open(location, "pets").images.read(["bytes"])
    assert images.equals(Collection.open(undisturbed, "pets").images.read(["bytes"]))


def test_a_lost_part_of_images_is_made_again_by_ingesting_again(
    tmp_path: Path, folder: Path
) -> None:
    location = Location(str(tmp_path / "root"))
    ingest(location, folder, "pets", part_rows=2)
    collection = Collection.open(location, "pets")
    everything = dict(collection.read_images(collection.image_ids()))
    part = collection.images.parts()[0].path
    path = tmp_path / "root" / part
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CorruptPart, match="cache repair"):
        ingest(location, folder, "pets")
    collection.images.quarantine(path.name)
    assert ingest(location, folder, "pets", part_rows=2).new_images > 0
    assert dict(collection.read_images(collection.image_ids())) == everything


def test_an_s3_prefix_is_a_source(s3_location: Location, tmp_path: Path, folder: Path) -> None:
    source = s3_location.child("photos")
    for path in folder.rglob("*.*g"):
        source.create(path.relative_to(folder).as_posix(), path.read_bytes())
    source.create("cat/empty.jpg", b"")
    source.create(".hidden/x.jpg", b"x")
    local = Location(str(tmp_path / "root"))
    for location in (local, s3_location):  # the latter keeps the collection beside its source
        summary = ingest(location, source.root + "/", "pets")
        assert (summary.files, summary.images, summary.failed) == (7, 5, {"empty_file": 1})
        assert ingest(location, source.root, "pets").new_files == 0
    assert statuses(Collection.open(local, "pets"))["cat/deep/er/2.jpg"] == "ok"
    one = ingest(local, source.join("cat/1.jpg"), "one")
    assert (one.files, one.images) == (1, 1)
    around = Location(s3_location.root.rpartition("/")[0])  # holds the photos and the collection
    assert ingest(s3_location.child("photos", "kept"), source.root, "inside").files == 7
    with pytest.raises(FileNotFoundError, match="none below it"):
        ingest(s3_location, around.root, "around")
    source.replace("cat/1.jpg", jpeg(50))
    assert ingest(local, source.root, "pets").new_images == 1


def test_the_collections_own_folder_is_not_ingested(folder: Path) -> None:
    location = Location(str(folder / "cirflow-data"))
    for _ in range(2):
        assert ingest(location, folder, "pets").files == 6
    with pytest.raises(ValueError, match="cannot be a source"):
        ingest(location, location.root, "pets")


def test_one_file_is_a_source(tmp_path: Path, folder: Path) -> None:
    location = Location(str(tmp_path / "root"))
    assert ingest(location, folder / "top.jpeg", "one").images == 1
    assert list(statuses(Collection.open(location, "one"))) == ["top.jpeg"]


def test_sources_and_names_that_do_not_exist(location: Location, folder: Path) -> None:
    ingest(location, folder, "pets")
    with pytest.raises(FileNotFoundError, match="no folder or file"):
        ingest(location, folder / "nothing", "x")
    with pytest.raises(UnknownCollection, match=r"no collection 'cats'.*there are: pets"):
        Collection.open(location, "cats")
    for name in ("", ".", "../x", "a/b", "a b", "ü", "-x", "x" * 129):
        with pytest.raises(ValueError, match="not a name for a collection"):
            ingest(location, folder, name)


def test_progress_counts_every_input(tmp_path: Path, folder: Path) -> None:
    calls: list[tuple[int, int | None]] = []
    location = Location(str(tmp_path / "root"))
    ingest(location, folder, "pets", progress=lambda *call: calls.append(call))
    assert calls == [(done, 6) for done in range(1, 7)]


def test_nothing_is_held_that_was_published(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    real = ingest_writer.Writer.add

    def add(self: ingest_writer.Writer, result: ingest_writer.Result) -> None:
        real(self, result)
        held.append(self._held_bytes)

    monkeypatch.setattr(ingest_writer.Writer, "add", add)
    ingest(Location(str(tmp_path / "root")), folder, "pets", part_bytes=2000)
    assert max(held) < 2000


@pytest.mark.slow
def test_real_photographs(tmp_path: Path, shared_data: Path) -> None:
    images = shared_data / "clothing" / "images"
    location = Location(str(tmp_path / "root"))
    summary = ingest(location, images, "clothing", part_bytes=2**22)
    paths = [path for path in images.rglob("*") if path.is_file()]
    assert summary.files == len(paths) == 1565
    assert summary.failed == {}
    collection = Collection.open(location, "clothing")
    rows = collection.rows()
    assert dict(rows["meta_class"].value_counts().iter_rows()) == Counter(
        path.parent.name for path in paths
    )
    found = dict(collection.read_images(collection.image_ids()))
    assert found == {sha(path.read_bytes()): path.read_bytes() for path in paths}
