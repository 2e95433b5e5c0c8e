"""Terms of a similarity, by hand and against the similarity itself."""

from __future__ import annotations

import pytest


def test_terms_by_hand() -> None:
    """q = 0.5 (1, 0) + 0.5 (0, 1); t = 0.6 (1, 0) + 0.8 (0, 1), of length one."""
    import numpy as np

    from models.retrieval.contributions import contributions
    from models.retrieval.gallery import Rows
    from models.retrieval.method_records import Recipe

    recipe = Recipe(query={"text": 0.5, "image": 0.5}, gallery={"captions": 0.6, "image": 0.8})
    made = {"text": np.array([[2.0, 0.0]]), "image": np.array([[0.0, 3.0]])}
    features = {
        "captions": Rows(np.array([[9.0, 9.0], [5.0, 0.0]], np.float32)),
        "image": Rows(np.array([[9.0, 9.0], [0.0, 7.0]], np.float32)),
    }
    (terms,) = contributions(recipe, made, features, [1])
    assert terms.query == pytest.approx({"text": 0.3, "image": 0.4})
    assert terms.gallery == pytest.approx({"captions": 0.3, "image": 0.4})


@pytest.mark.parametrize("kind", ["sum", "late", "function", "dot"])
def test_either_side_sums_to_the_similarity(kind: str) -> None:
    import numpy as np

    from models.retrieval.contributions import Weights, contributions, reweighed
    from models.retrieval.gallery import Rows
    from models.retrieval.method_records import AnyRecipe, LateFusion, Recipe

    random = np.random.default_rng(5)
    made = {name: random.normal(size=(1, 6)).astype(np.float32) for name in "abc"}
    features = {name: Rows(random.normal(size=(8, 6)).astype(np.float32)) for name in "xy"}
    plain = Recipe(query={"a": 0.7, "b": -0.3}, gallery={"x": 0.4, "y": 0.6}, norms={"a": "as_is"})
    other = Recipe(query={"c": 1.0}, gallery={"x": 1.0})
    recipe: AnyRecipe = {
        "sum": plain,
        "late": LateFusion(((0.3, plain), (0.7, other))),
        "function": Recipe(
            query={"a": 1.0}, gallery={"x": 0.5, "y": 0.5}, combine=lambda q, g: q["a"] * 2
        ),
        "dot": Recipe(query={"a": 2.0}, gallery={"x": 3.0}, similarity="dot"),
    }[kind]
    if kind != "function":
        recipe = reweighed(recipe, Weights({"a": 1.5}, {"x": 0.25}))
    queries = recipe.query_vectors(made, features)
    scores = recipe.gallery_vectors({n: own[:] for n, own in features.items()}) @ queries[0]
    for score, terms in zip(scores, contributions(recipe, made, features, range(8)), strict=True):
        assert sum(terms.query.values()) == pytest.approx(score, abs=1e-5)
        assert sum(terms.gallery.values()) == pytest.approx(score, abs=1e-5)
