"""Gallery vectors made in blocks against those of all features at once."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("places", ["all", "some"])
def test_blocks_are_the_rows_of_the_whole(dtype: type, places: str) -> None:
    from models.retrieval.gallery import Gallery, Rows
    from models.retrieval.method_records import Recipe

    rng = np.random.default_rng(1)
    recipe = Recipe(query={"text": 1.0}, gallery={"image": 0.7, "captions": 0.3})
    features = {n: rng.standard_normal((2500, 24)).astype(dtype) for n in recipe.gallery}
    wanted = np.arange(2500) if places == "all" else rng.permutation(2500)[:2300]
    whole = recipe.gallery_vectors({n: v[wanted].astype("float32") for n, v in features.items()})
    rows = {name: Rows.at(vectors, wanted) for name, vectors in features.items()}
    assert all((own.places is None) == (places == "all") for own in rows.values())
    gallery = Gallery(rows, recipe.gallery_vectors)
    assert len(gallery) == len(wanted)
    assert (np.concatenate(list(gallery.blocks(1100))) == whole).all()
    picked = np.array([7, 3, 2200, 3])
    assert (gallery[picked] == whole[picked]).all()
    assert gallery[picked[:0]].shape == (0, 24)
    assert (np.asarray(rows["image"]) == features["image"][wanted].astype("float32")).all()


def test_groups_are_ordered_by_mapped_vectors() -> None:
    from models.retrieval.gallery import Gallery, Rows
    from models.retrieval.ranked_lists import group_order

    images = np.array([[1, 0], [3, 0], [2, 0], [3, 0]], np.float32)
    gallery = Gallery({"image": Rows(images)}, lambda features: features["image"])
    order = group_order(np.array([3, 2, 1, -1]), gallery, np.array([1, 0], np.float32))
    assert order.tolist() == [1, 3, 2]
    assert group_order(np.array([-1]), gallery, images[0]).tolist() == []
