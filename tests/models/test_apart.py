"""Search without gallery vectors against the search that makes them."""

from __future__ import annotations

from typing import Any

import pytest

KINDS = "sum", "one", "weighed one", "as it is", "one as it is", "dot", "late", "against"


def recipes() -> dict[str, Any]:
    from models.retrieval.method_records import LateFusion, Recipe

    both = Recipe(query={"a": 0.7, "b": -0.3}, gallery={"x": 0.4, "y": 0.6})
    raw = Recipe(query={"a": 1.0}, gallery={"x": 0.5, "y": 0.5}, norms={"y": "as_is"})
    return {
        "sum": both,
        "one": Recipe(query={"a": 2.0}, gallery={"x": 1.0}),
        "weighed one": Recipe(query={"a": 2.0}, gallery={"x": -3.0}),
        "as it is": raw,
        "one as it is": Recipe(query={"a": 1.0}, gallery={"y": 1.0}, norms={"y": "as_is"}),
        "dot": Recipe(query={"a": 1.0}, gallery={"x": 3.0, "y": 1.0}, similarity="dot"),
        "late": LateFusion(((0.3, both), (0.7, Recipe(query={"c": 1.0}, gallery={"z": 1.0})))),
        "against": Recipe(query={"a": 1.0}, gallery={"x": 1.0, "y": -1.0}),
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("places", ["all", "some"])
def test_finds_what_made_vectors_find(
    kind: str, places: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where blocks end, vectors are zero, images are equal, and parts cancel each other."""
    import numpy as np

    from models.retrieval import apart
    from models.retrieval.gallery import Rows

    monkeypatch.setattr(apart, "WIDE_BLOCK", 700)
    recipe = recipes()[kind]
    random = np.random.default_rng(3)
    made = {n: random.normal(size=(1, 9 if n == "c" else 16)).astype("float32") for n in "abc"}
    held = {n: random.normal(size=(2000, 9 if n == "z" else 16)) * 3 for n in "xyz"}
    held["x"][5] = 0.0
    held["y"][900:910] = held["x"][900:910] * 1.01 + 1e-3  # nearly cancel under x - y
    for own in held.values():
        own[1500:1510] = own[[40]]
    order = np.arange(2000) if places == "all" else random.permutation(2000)[:1900]
    stored = {n: own.astype("float16" if n == "y" else "float32") for n, own in held.items()}
    features = {n: Rows.at(own, order) for n, own in stored.items()}
    query = recipe.query_vectors(made, features).astype("float32")
    query /= np.linalg.norm(query)
    whole = {n: own[order].astype("float32") for n, own in stored.items()}
    scores = recipe.gallery_vectors(whole) @ query[0]
    scores[7] = -np.inf
    expected = np.argsort(-scores, kind="stable")[:1800]
    got = apart.top_k_apart(
        recipe,
        query,
        features,
        lambda one, other: apart.own_products(features[one], features[other]),
        1800,
        np.array([[7, -1]]),
    )
    loose = 1e-5 if kind in ("against", "dot", "one as it is") else 1e-6  # vectors of any length
    np.testing.assert_allclose(got.scores[0], scores[expected], atol=loose)
    np.testing.assert_allclose(scores[got.indices[0]], scores[expected], atol=loose)
    assert len(set(got.indices[0].tolist())) == 1800


def test_a_feature_of_another_backbone_is_refused() -> None:
    import numpy as np

    from models.retrieval.apart import own_products, top_k_apart
    from models.retrieval.gallery import Rows
    from models.retrieval.method_records import Recipe

    features = {"x": Rows(np.ones((3, 4), np.float32))}
    with pytest.raises(ValueError, match="dim 4, the queries have 5"):
        top_k_apart(
            Recipe(query={"a": 1.0}, gallery={"x": 1.0}),
            np.ones((1, 5), np.float32),
            features,
            lambda one, other: own_products(features[one], features[other]),
            1,
            np.array([[-1]]),
        )
