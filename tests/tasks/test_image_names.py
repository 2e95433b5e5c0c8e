"""Images are found by the names of others, folders included as far as they are known here."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.collections.collection import ingest
from storage.exchange.sources import ExchangeError
from storage.locations.location import Location
from tasks.image_names import ImageNames
from tests.fakes.pictures import jpeg


def test_a_name_with_folders_is_the_file_below_the_folders_that_are_known(tmp_path: Path) -> None:
    for seed, name in enumerate(("a/x/1.jpg", "b/x/1.jpg", "b/y/1.jpg", "b/2.jpg")):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "images" / name).write_bytes(jpeg(seed))
    root = str(tmp_path / "root")
    ingest(Location(root), tmp_path / "images", "photos")
    names = ImageNames(root, "photos")
    assert names.find("y/1.jpg") == names.find("b/y/1.jpg") is not None
    # The publisher's own folders lie above those that were ingested.
    assert names.find("/data/all/b/y/1.png") == names.find("b/y/1.jpg")
    assert names.find("/data/b/x/1.jpg") == names.find("b/x/1.jpg") != names.find("a/x/1.jpg")
    assert names.find("/data/2.jpg") == names.find("2")
    assert names.find("/data/3.jpg") is None
    for several in ("1", "x/1", "/data/1.jpg", "/data/x/1.jpg"):
        with pytest.raises(ExchangeError, match=r"may be .* or "):
            names.find(several)
