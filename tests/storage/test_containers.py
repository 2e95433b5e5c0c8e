"""Ingest of webdataset tars and Parquet files, whole and damaged."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.collections.collection import Collection, IngestSummary, ingest
from storage.locations.location import Location
from tests.fakes.pictures import jpeg, png, png_header

SAMPLES: dict[str, bytes] = {
    "000.json": json.dumps({"meta_class": "coat", "caption": "x"}).encode(),
    "000.jpg": jpeg(0),
    "000.txt": b"a coat",
    "001.jpg": jpeg(1),
    "001.cls": b"7\n",
    "shoe/002.seg.png": png(2),
    "003.jpg": b"",
    "004": jpeg(4),
    ".hidden.jpg": jpeg(9),
}


def tar(members: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, **options)
    return sink.getvalue().to_pybytes()


@pytest.fixture
def kept(tmp_path: Path) -> Location:
    return Location(str(tmp_path / "root"))


def take_in(kept: Location, tmp_path: Path, files: dict[str, bytes], **options: Any) -> (
    tuple[IngestSummary, dict[str, dict[str, Any]]]
):  # fmt: skip
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    for name, data in files.items():
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)
    summary = ingest(kept, source, "c", **options)
    rows = Collection.open(kept, "c").rows()
    assert len(rows) == summary.files
    return summary, {row["path"]: row for row in rows.iter_rows(named=True)}


# -- tar -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tgz", "w:xz")]
)
def test_a_webdataset(kept: Location, tmp_path: Path, name: str, mode: str) -> None:
    _, rows = take_in(kept, tmp_path, {name: tar(SAMPLES, mode)})
    assert {path: (row["status"], row["meta_class"]) for path, row in rows.items()} == {
        f"{name}!000.jpg": ("ok", "coat"),
        f"{name}!001.jpg": ("ok", "7"),
        f"{name}!shoe/002.seg.png": ("ok", "shoe"),
        f"{name}!003.jpg": ("empty_file", ""),
        f"{name}!004": ("ok", ""),
    }
    collection = Collection.open(kept, "c")
    assert sorted(dict(collection.read_images(collection.image_ids())).values()) == sorted(
        [jpeg(0), jpeg(1), png(2), jpeg(4)]
    )


def test_a_folder_of_tars_beside_images(kept: Location, tmp_path: Path) -> None:
    files = {
        "train/a.tar": tar({"1.jpg": jpeg(1), "2.jpg": jpeg(2)}),
        "train/b.tar": tar({"1.jpg": jpeg(1), "3.jpg": jpeg(3)}),
        "c/4.jpg": jpeg(4),
        "c/2-again.jpg": jpeg(2),
    }
    summary, rows = take_in(kept, tmp_path, files)
    assert (summary.files, summary.images, summary.duplicates) == (6, 4, 2)
    assert rows["train/b.tar!3.jpg"]["meta_class"] == "train"
    calls: list[tuple[int, int | None]] = []
    again, _ = take_in(kept, tmp_path, files, progress=lambda *call: calls.append(call))
    assert (again.new_files, again.files, again.listing) == (0, 6, summary.listing)
    assert calls[-1] == (2, None)  # the archives were not opened


def test_an_archive_that_changed_is_read_again(kept: Location, tmp_path: Path) -> None:
    take_in(kept, tmp_path, {"a.tar": tar({"1.jpg": jpeg(1), "2.jpg": jpeg(2)})})
    members = {"1.jpg": jpeg(1), "3.jpg": jpeg(3), "4.jpg": jpeg(4)}
    summary, rows = take_in(kept, tmp_path, {"a.tar": tar(members)})
    assert set(rows) == {"a.tar!1.jpg", "a.tar!3.jpg", "a.tar!4.jpg"}
    assert summary.new_images == 2


def test_an_archive_whose_rows_were_lost_is_read_again(kept: Location, tmp_path: Path) -> None:
    files = {"a.tar": tar({"1.jpg": jpeg(1)})}
    take_in(kept, tmp_path, files)
    sources = Collection.open(kept, "c").sources
    sources.quarantine(sources.parts()[0].path.rpartition("/")[2])
    summary, rows = take_in(kept, tmp_path, files)
    assert (summary.new_files, summary.new_images) == (1, 0)
    assert rows["a.tar!1.jpg"]["status"] == "ok"


MEMBERS = {f"{number}.jpg": jpeg(number) for number in range(5)}
STARTS = [sum(512 + -(-len(data) // 512) * 512 for data in list(MEMBERS.values())[:n])
          for n in range(6)]  # fmt: skip


@pytest.mark.parametrize(
    ("cut", "whole"),
    [
        (0, 0),
        (100, 0),
        (STARTS[1] - 700, 0),  # in the first image
        (STARTS[2], 2),  # between two members, where plain tar readers see a proper end
        (STARTS[2] + 300, 2),  # in a header
        (STARTS[3] + 600, 3),  # in the bytes of an image
        (STARTS[5], 5),  # only the end-of-archive mark is gone
    ],
)
def test_a_truncated_tar(kept: Location, tmp_path: Path, cut: int, whole: int) -> None:
    _, rows = take_in(kept, tmp_path, {"a.tar": tar(MEMBERS)[:cut], "b.jpg": jpeg(9)})
    assert rows.pop("b.jpg")["status"] == "ok"  # the run went on
    problem = rows.pop("a.tar")
    assert problem["status"] == "truncated_archive"
    assert problem["reason"]
    assert {path: row["status"] for path, row in rows.items()} == {
        f"a.tar!{number}.jpg": "ok" for number in range(whole)
    }


def test_a_damaged_header_does_not_end_the_archive_quietly(kept: Location, tmp_path: Path) -> None:
    data = bytearray(tar(MEMBERS))
    data[STARTS[3] : STARTS[3] + 512] = b"\x55" * 512
    _, rows = take_in(kept, tmp_path, {"a.tar": bytes(data)})
    assert rows["a.tar"]["status"] == "truncated_archive"
    assert "2.jpg" in rows["a.tar"]["reason"]
    assert len(rows) == 4


def test_a_truncated_gzip_and_a_file_that_is_no_tar(kept: Location, tmp_path: Path) -> None:
    packed = tar(MEMBERS, "w:gz")
    files = {"a.tar.gz": packed[: len(packed) // 2], "b.tar": b"no tar" * 300, "c.tgz": b"\x1f\x8b"}
    _, rows = take_in(kept, tmp_path, files)
    for name in files:
        assert rows[name]["status"] == "truncated_archive"
    assert all(row["status"] == "ok" for path, row in rows.items() if "!" in path)


HOSTILE = [
    "../../escape.jpg",
    "/etc/absolute.jpg",
    "./cat/ok.jpg",
    "a\nb.jpg",
    "..",
    "x/../../up.jpg",
    b"latin\xe9.jpg".decode("utf-8", "surrogateescape"),
    "n" * 300 + ".jpg",
]


def test_hostile_members(kept: Location, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in HOSTILE:
            info = tarfile.TarInfo(name)
            info.size = len(jpeg())
            archive.addfile(info, io.BytesIO(jpeg()))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"special-{kind.decode()}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        info = tarfile.TarInfo("folder.jpg")
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
        for data, name in ((png_header(60_000, 60_000), "bomb.png"), (b"[" * 9999, "deep.json")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    before = {path for path in tmp_path.rglob("*") if "root" not in path.parts}
    _, rows = take_in(kept, tmp_path, {"a.tar": buffer.getvalue()})
    rows = {path.removeprefix("a.tar!"): row for path, row in rows.items()}
    assert {path: row["status"] for path, row in rows.items() if row["status"] != "ok"} == {
        **{f"special-{number}.jpg": "not_a_file" for number in (1, 2, 3, 6)},
        "bomb.png": "too_many_pixels",
    }
    assert rows["../../escape.jpg"]["meta_class"] == ""
    assert rows["/etc/absolute.jpg"]["meta_class"] == "etc"
    assert rows["./cat/ok.jpg"]["meta_class"] == "cat"
    assert rows["latin\\xe9.jpg"]["status"] == "ok"
    after = {path for path in tmp_path.rglob("*") if "root" not in path.parts}
    assert {path.name for path in after - before} == {"source", "a.tar"}  # nothing was extracted


def test_members_of_one_name_are_rows_of_their_own(kept: Location, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(3):
            info = tarfile.TarInfo("same.jpg")
            info.size = len(jpeg(number))
            archive.addfile(info, io.BytesIO(jpeg(number)))
    summary, _ = take_in(kept, tmp_path, {"a.tar": buffer.getvalue()})
    assert (summary.files, summary.images) == (3, 3)


def test_a_member_above_the_limit_is_not_read(kept: Location, tmp_path: Path) -> None:
    members = {"0.jpg": jpeg(0) + bytes(50_000), "1.jpg": jpeg(1)}
    _, rows = take_in(kept, tmp_path, {"a.tar": tar(members)}, max_file_bytes=20_000)
    assert rows["a.tar!0.jpg"]["status"] == "too_large"
    assert rows["a.tar!1.jpg"]["status"] == "ok"


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff", b'{"meta_class": null}', b'"x"'])
def test_metadata_that_says_nothing_leaves_the_folder(
    kept: Location, tmp_path: Path, content: bytes
) -> None:
    archive = tar({"hat/0.json": content, "hat/0.jpg": jpeg()})
    _, rows = take_in(kept, tmp_path, {"a.tar": archive})
    assert rows["a.tar!hat/0.jpg"]["meta_class"] == "hat"


@pytest.mark.parametrize(
    ("stated", "shown"),
    [
        (r"\ud83d\ude00", "\U0001f600"),
        (r"a\ud800b", r"a\ud800b"),
        (r"caf\udcc3\udca9", "caf\u00e9"),
    ],
)
def test_metadata_with_half_characters(
    kept: Location, tmp_path: Path, stated: str, shown: str
) -> None:
    archive = tar({"0.json": f'{{"meta_class": "{stated}"}}'.encode(), "0.jpg": jpeg()})
    _, rows = take_in(kept, tmp_path, {"a.tar": archive})
    assert rows["a.tar!0.jpg"]["meta_class"] == shown


# -- Parquet ---------------------------------------------------------------------------------------


def test_parquet_of_bytes_and_of_structs(kept: Location, tmp_path: Path) -> None:
    files = {
        "plain.parquet": parquet({"n": [1, 2], "jpg": [jpeg(1), None], "label": ["a", "b"]}),
        "hf/struct.parquet": parquet(
            {
                "image": [
                    {"bytes": png(3), "path": "dog/3.png"},
                    {"bytes": None, "path": "/etc/passwd"},
                    None,
                    {"bytes": b"junk", "path": None},
                ],
                "label": ["x", "y", None, None],
            }
        ),
    }
    _, rows = take_in(kept, tmp_path, files, class_field="label")
    assert {path: (row["status"], row["meta_class"]) for path, row in rows.items()} == {
        "plain.parquet!row-000000000": ("ok", "a"),
        "plain.parquet!row-000000001": ("no_bytes", "b"),
        "hf/struct.parquet!dog/3.png": ("ok", "x"),
        "hf/struct.parquet!/etc/passwd": ("no_bytes", "y"),
        "hf/struct.parquet!row-000000002": ("no_bytes", "hf"),
        "hf/struct.parquet!row-000000003": ("not_an_image", "hf"),
    }
    again, _ = take_in(kept, tmp_path, files, class_field="label")
    assert again.new_files == 0


def test_parquet_text_that_is_no_unicode(kept: Location, tmp_path: Path) -> None:
    """Arrow writes what it was given and complains when it is read."""
    label = pa.array([b"\xff"], pa.binary()).view(pa.string())
    files = {"a.parquet": parquet({"jpg": [jpeg()], "label": label}), "b.jpg": jpeg(1)}
    _, rows = take_in(kept, tmp_path, files, class_field="label")
    assert {path: row["status"] for path, row in rows.items()} == {
        "a.parquet": "truncated_archive",
        "b.jpg": "ok",
    }


def test_parquet_without_a_column_of_images(kept: Location, tmp_path: Path) -> None:
    files = {
        "none.parquet": parquet({"x": [1]}),
        "two.parquet": parquet({"left": [b"1"], "right": [b"2"]}),
        "usual.parquet": parquet({"image": [jpeg()], "mask": [b"2"]}),
    }
    _, rows = take_in(kept, tmp_path, files)
    assert rows["none.parquet"]["status"] == rows["two.parquet"]["status"] == "no_image_column"
    assert "left, right" in rows["two.parquet"]["reason"]
    assert rows["usual.parquet!row-000000000"]["status"] == "ok"


def test_damaged_parquet_is_a_row(kept: Location, tmp_path: Path) -> None:
    images = [jpeg(number) for number in range(40)]
    good = parquet({"image": images}, row_group_size=20, compression="none", use_dictionary=False)
    start = pq.ParquetFile(pa.BufferReader(good)).metadata.row_group(1).column(0).data_page_offset
    holed = bytearray(good)
    holed[start : start + 40] = b"\xff" * 40
    _, rows = take_in(kept, tmp_path, {"cut.parquet": good[:-99], "holed.parquet": bytes(holed)})
    assert rows["cut.parquet"]["status"] == rows["holed.parquet"]["status"] == "truncated_archive"
    assert [row["status"] for path, row in rows.items() if path.startswith("holed.parquet!")] == (
        ["ok"] * 20
    )


# -- S3 --------------------------------------------------------------------------------------------


def test_containers_on_s3(s3_location: Location, kept: Location) -> None:
    source = s3_location.child("shards")
    source.create("a.tar", tar(MEMBERS))
    source.create("b.parquet", parquet({"image": [png(7)]}))
    summary = ingest(kept, source.root, "c")
    assert (summary.files, summary.images, summary.failed) == (6, 6, {})
    assert ingest(kept, source.root, "c").new_files == 0
    assert ingest(kept, source.join("a.tar"), "d").files == 5
