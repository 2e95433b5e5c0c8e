"""Products of a gallery's own features: made once, told by images and tables, bounded in bytes."""

from __future__ import annotations

from dataclasses import replace

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
