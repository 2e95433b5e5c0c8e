"""What searches share is made once, told by images and tables, and bounded in bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tasks import kept_searches
from tasks.galleries import OpenGallery
from tasks.kept_searches import Kept


def test_made_once_for_the_same_images_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    from models.retrieval.gallery import Rows

    rows = {name: np.eye(3, dtype=np.float32) * size for name, size in (("x", 2), ("y", 3))}
    opened = OpenGallery(
        size=3,
        keys=np.array([b"a", b"b", b"c"]),
        features={name: Rows(own) for name, own in rows.items()},
        tables={"x": "image_features/1", "y": "caption_features/1"},
    )
    kept = Kept()
    first = kept.own_products("root", opened, "x", "y")
    assert first.tolist() == [6, 6, 6]
    assert kept.own_products("root", replace(opened), "x", "y") is first  # opened again
    # A picture more, or another root, is not the same gallery.
    wider = Rows(np.ones((4, 3), np.float32))
    grown = replace(
        opened, keys=np.array([b"a", b"b", b"c", b"d"]), features={"x": wider, "y": wider}
    )
    assert kept.own_products("root", grown, "x", "y").tolist() == [3, 3, 3, 3]
    assert kept.own_products("other", opened, "x", "y") is not first
    assert kept.own_products("root", opened, "x", "y") is first
    monkeypatch.setattr(kept_searches, "OWN_BYTES", 2 * first.nbytes)
    kept.own_products("root", opened, "x", "x")
    assert kept.own_products("root", opened, "x", "y") is first  # used last of those before
    kept.own_products("root", opened, "y", "y")
    kept.own_products("root", grown, "x", "x")
    assert kept.own_products("root", opened, "x", "y") is not first


def test_names_of_files_are_read_once_for_a_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from storage.collections.collection import Collection, ingest
    from storage.locations.location import Location
    from tests.fakes.drawn import draw_folder

    draw_folder(tmp_path / "in", 3)
    root = Location(str(tmp_path / "root"))
    ingest(root, tmp_path / "in", "own")
    read: list[str] = []
    whole = Collection.paths
    monkeypatch.setattr(Collection, "paths", lambda own: read.append(own.listing) or whole(own))
    kept = Kept(fresh_s=600.0)
    first = Collection.open(root, "own")
    ids = list(first.image_ids())
    for _ in range(2):
        assert kept.paths_of(first, [*ids, "0" * 64]) == first.paths_of([*ids, "0" * 64])
    draw_folder(tmp_path / "in" / "more", 1, seed=5)
    ingest(root, tmp_path / "in", "own")
    second = Collection.open(root, "own")
    assert kept.paths(second).images == 4
    assert kept.paths(first).images == 3  # the listing of before is told from the new one
    assert read == [first.listing, second.listing]
    monkeypatch.setattr(kept_searches, "PATH_BYTES", 1)
    ingest(root, tmp_path / "in" / "more", "other")
    kept.paths(Collection.open(root, "other"))
    kept.paths(second)
    assert read[3:] == [second.listing]  # it had to go: one listing is kept at least


def test_a_gallery_and_its_names_are_of_one_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name stands for other images while the features are opened."""
    from flows.profiles import tiny
    from storage.collections.collection import ingest
    from storage.locations.location import Location
    from tests.fakes.drawn import draw_folder

    root = Location(str(tmp_path / "root"))
    for name, count in (("one", 2), ("two", 3)):
        draw_folder(tmp_path / name, count, seed=count)
    ingest(root, tmp_path / "one", "own")
    opened: list[str] = []

    def replaced(*given: object) -> str:
        if not opened:
            ingest(root, tmp_path / "two", "own", if_taken="replace")
        opened.append(f"gallery {len(opened) + 1}")
        return opened[-1]

    monkeypatch.setattr(kept_searches, "open_gallery", replaced)
    listed, gallery = Kept().gallery(tiny().changed(root=root.root), "own", {})
    assert (len(listed.image_ids()), gallery) == (3, "gallery 2")
