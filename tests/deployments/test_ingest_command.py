"""`cirflow ingest`: what it says of files that are not images, and of names that are taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deployments.cli import main
from storage.collections.collection import Collection
from storage.locations.location import Location
from tests.deployments.refusals import refusal
from tests.fakes.pictures import broken_files, jpeg


def test_ingest_of_no_image_says_each_reason_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, empty = tmp_path / "pictures", tmp_path / "empty"
    folder.mkdir()
    empty.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_text("no picture")
    said = {}
    for source in (folder, empty):
        arguments = ["ingest", str(source), "--name", "pets", "--root", str(tmp_path / "tables")]
        assert main(arguments) == 2
        said[source] = " ".join(capsys.readouterr().err.split())
    assert [said[folder].count(f"{name}.jpg: not_an_image") for name in "ab"] == [1, 1]
    assert said[folder].endswith(
        f"no input in {folder} is a usable image; the collection 'pets' was not made"
    )
    assert said[empty].endswith(f"{empty} is empty; the collection 'pets' was not made")


def test_ingest_names_each_of_thirty_broken_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    (folder / "red").mkdir(parents=True)
    for seed in range(5):
        (folder / "red" / f"good-{seed}.jpg").write_bytes(jpeg(seed))
    (folder / "again.jpg").write_bytes(jpeg(0))
    broken = broken_files()
    assert len(broken) == 30
    for name, (data, _) in broken.items():
        (folder / name).write_bytes(data)
    root = tmp_path / "tables"
    assert main(["ingest", str(folder), "--name", "mixed", "--root", str(root)]) == 0
    shown = capsys.readouterr()
    said = " ".join(shown.err.split())  # a terminal's width may break lines anywhere
    assert "36 inputs: 5 images, 1 duplicate, 30 not usable; 5 images were new" in said
    for name, (_, status) in broken.items():
        assert f"{name}: {status}" in said
    assert "collection mixed" in shown.out
    rows = Collection.open(Location(str(root)), "mixed").rows()
    assert len(rows) == 36
    assert rows.filter(rows["status"] == "ok")["path"].to_list() == [
        "again.jpg",
        *(f"red/good-{seed}.jpg" for seed in range(5)),
    ]
    assert main(["ingest", str(folder), "--name", "mixed", "--root", str(root)]) == 0
    assert "0 images were new" in " ".join(capsys.readouterr().err.split())


def test_ingest_of_one_picture_counts_it_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "1.jpg").write_bytes(jpeg(1))
    given = ["--name", "pets", "--root", str(tmp_path / "tables")]
    assert main(["ingest", str(tmp_path / "one"), *given]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "1 input: 1 image, 0 duplicates, 0 not usable; 1 image was new" in said
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "2.jpg").write_bytes(jpeg(2))
    assert main(["ingest", str(tmp_path / "two"), *given]) == 2
    assert "(1 input, 1 image, since" in " ".join(capsys.readouterr().err.split())


def test_ingest_does_not_give_a_name_away_unless_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, seeds in (("a", (1, 2)), ("b", (3,))):
        (tmp_path / place).mkdir()
        for seed in seeds:
            (tmp_path / place / f"{seed}.jpg").write_bytes(jpeg(seed))
    given = ["--name", "pets", "--root", str(tmp_path / "tables")]
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["ingest", a, *given]) == 0
    capsys.readouterr()
    assert f"cirflow ingest {b} --name pets" in refusal(capsys, "ingest", b, *given)
    (tmp_path / "a" / "4.jpg").write_bytes(jpeg(4))
    assert main(["ingest", a, *given]) == 0
    assert "tables: 1 added, 0 changed, 0 gone, 2 unchanged" in capsys.readouterr().out
    assert main(["ingest", b, *given, "--add"]) == 0
    assert "1 added, 0 changed, 0 gone, 3 unchanged" in capsys.readouterr().out
    assert main(["ingest", b, *given, "--replace"]) == 0
    assert f"3 gone, 1 unchanged; the name stands for {b} now" in capsys.readouterr().out


def test_ingest_refuses_what_is_not_there_and_names_that_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"--root={tmp_path / 'tables'}"
    missing = str(tmp_path / "nothing")
    assert missing in refusal(capsys, "ingest", missing, "--name", "a", root)
    image = tmp_path / "a.png"
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(image)
    assert "letters, digits" in refusal(capsys, "ingest", str(image), "--name", "a/b", root)
