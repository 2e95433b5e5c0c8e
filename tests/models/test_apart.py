"""Search without gallery vectors against the search that makes them."""

from __future__ import annotations

import warnings
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


def searched(
    recipe: Any,
    held: dict[str, Any],
    copies: dict[str, Any],
    k: int,
    excluded: int = 7,
    places: Any = None,
) -> Any:
    """The search with copies, and that without them, of a query of which the seed is fixed."""
    import numpy as np

    from models.retrieval.apart import own_products, top_k_apart
    from models.retrieval.gallery import Halves, Rows

    random = np.random.default_rng(11)
    widths = {n: held[of].shape[1] for n, of in zip("abc", "xyz", strict=True)}
    made = {n: random.normal(size=(1, width)).astype("float32") for n, width in widths.items()}
    found = []
    for own in (copies, {}):
        squares = {n: (rows.astype("float64") ** 2).sum(1) for n, rows in held.items()}
        features = {
            n: Rows(rows, places, Halves(own[n], squares[n]) if own else None)
            for n, rows in held.items()
        }
        query = recipe.query_vectors(made, features).astype("float32")

        def products(one: str, other: str, rows: Any = features) -> Any:
            return own_products(rows[one], rows[other])

        found.append(top_k_apart(recipe, query, features, products, k, np.array([[excluded, -1]])))
    return found


def drawn(count: int = 6000, dim: int = 16) -> dict[str, Any]:
    """Features with zeros, equal images and parts that cancel."""
    import numpy as np

    random = np.random.default_rng(4)
    held = {n: random.normal(size=(count, 9 if n == "z" else dim)) * 3 for n in "xyz"}
    held["x"][5] = 0.0
    held["y"][900:910] = held["x"][900:910] * 1.01 + 1e-3
    for own in held.values():
        own[-7:] = own[[40]]
        own[1500:1505] = own[[40]]
    return {n: own.astype("float32") for n, own in held.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("images", ["all", "most", "few", "in any order"])
def test_copies_change_no_rank_and_no_score(
    kind: str, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    from models.retrieval import apart

    monkeypatch.setattr(apart, "ROUGH_BLOCK", 700)
    monkeypatch.setattr(apart, "_FEW", 4)  # vectors of 16 numbers lie close together
    monkeypatch.setattr(apart, "_MANY", 1)
    by_copies: list[Any] = []
    way = apart._by_candidates
    monkeypatch.setattr(
        apart, "_by_candidates", lambda *a: by_copies.append(way(*a)) or by_copies[-1]
    )
    held = drawn()
    copies = {n: own.astype("float16") for n, own in held.items()}
    shuffled = np.random.default_rng(1).permutation(6000)
    some = {
        "all": None,
        "most": np.sort(shuffled[:5000]),
        "few": np.sort(shuffled[:900]),
        "in any order": shuffled,
    }[images]
    first = searched(recipes()[kind], held, copies, 1, places=some)[1].indices[0, 0]
    for k, excluded in ((1, 7), (1, first), (50, first), (300, 7)):
        got, expected = searched(recipes()[kind], held, copies, k, int(excluded), some)
        assert by_copies[-1] is not None
        assert (got.indices == expected.indices).all()
        assert (got.scores == expected.scores).all()


@pytest.mark.parametrize("share", [1e-2, 3e-2])
def test_copies_change_no_score_of_images_whose_parts_cancel(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their vectors are made, and are multiplied next to other ones than without copies."""
    from models.retrieval import apart

    monkeypatch.setattr(apart, "_FEW", 1)
    monkeypatch.setattr(apart, "_MANY", 1)
    held = drawn(2000, dim=512)  # all of them nearly cancel under x - y
    held["y"] = held["x"] * (1 + share)
    held["y"][:, 0] += share
    held["x"][3::30], held["y"][3::30] = held["x"][3], held["y"][3]
    copies = {n: own.astype("float16") for n, own in held.items()}
    for k in (10, 1000, 1990):
        got, expected = searched(recipes()["against"], held, copies, k)
        assert (got.indices == expected.indices).all()
        assert (got.scores == expected.scores).all()
        equal = [s for i, s in zip(got.indices[0], got.scores[0], strict=True) if i % 30 == 3]
        assert len(set(equal)) <= 1


def test_lengths_that_lie_behind_copies_are_not_made_again() -> None:
    import numpy as np

    from models.retrieval.apart import own_products
    from models.retrieval.gallery import Halves, Rows

    held = drawn(50)
    copies = Halves(held["x"].astype("float16"), (held["x"].astype("float64") ** 2).sum(1))
    for places in (None, np.array([3, 4, 40])):
        rows = Rows(held["x"], places)
        unread = Rows(np.empty((50, 0), np.float32), places, copies)
        np.testing.assert_allclose(own_products(unread, unread), own_products(rows, rows))


def test_where_copies_cannot_tell_all_images_are_ranked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many images near the last place, numbers without a half, and too few images."""
    import numpy as np

    from models.retrieval import apart

    monkeypatch.setattr(apart, "_MANY", 1)
    recipe = recipes()["dot"]
    held = drawn()
    for own in held.values():
        own[100:3000] = own[[40]]
    copies = {n: own.astype("float16") for n, own in held.items()}
    best = {n: np.concatenate([own[[40]] * 9, own]) for n, own in held.items()}
    for rows, k in ((held, 2950), (best, 5), (held, 5990)):
        got, expected = searched(recipe, rows, {n: o.astype("float16") for n, o in rows.items()}, k)
        assert (got.indices == expected.indices).all()
    held["x"][20] = held["y"][20] = 7e4
    with np.errstate(over="ignore"):
        copies = {n: own.astype("float16") for n, own in held.items()}
    for each in (recipe, recipes()["against"]):
        with warnings.catch_warnings(action="error"):
            got, expected = searched(each, held, copies, 10)
        assert (got.indices == expected.indices).all()
    held["x"][20, 3] = copies["x"][20, 3] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        searched(recipe, held, copies, 10)
    with pytest.raises(ValueError, match="5999 of 6000 gallery images left"):
        searched(recipe, drawn(), {n: o.astype("float16") for n, o in drawn().items()}, 6000)


def test_copies_are_not_asked_for_most_images(monkeypatch: pytest.MonkeyPatch) -> None:
    from models.retrieval import apart

    asked: list[int] = []
    way = apart._by_candidates
    monkeypatch.setattr(apart, "_by_candidates", lambda *a: asked.append(a[2]) or way(*a))
    copies = {n: own.astype("float16") for n, own in drawn().items()}
    for k in (10, 750, 751, 5000):
        searched(recipes()["one"], drawn(), copies, k)
    assert asked == [10, 750]


def test_copies_that_are_not_what_they_should_be_are_not_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = drawn()
    copies = {n: (own * 1.1).astype("float16") for n, own in held.items()}
    got, expected = searched(recipes()["one"], held, copies, 10)
    assert (got.indices == expected.indices).all()
    assert "not what they should be" in caplog.text


@pytest.mark.parametrize("halves", [False, True])
def test_a_feature_of_another_backbone_is_refused(halves: bool) -> None:
    import numpy as np

    from models.retrieval.apart import own_products, top_k_apart
    from models.retrieval.gallery import Halves, Rows
    from models.retrieval.method_records import Recipe

    copies = Halves(np.ones((3, 4), np.float16), np.full(3, 4.0))
    features = {"x": Rows(np.ones((3, 4), np.float32), halves=copies if halves else None)}
    with pytest.raises(ValueError, match="dim 4, the queries have 5"):
        top_k_apart(
            Recipe(query={"a": 1.0}, gallery={"x": 1.0}),
            np.ones((1, 5), np.float32),
            features,
            lambda one, other: own_products(features[one], features[other]),
            1,
            np.array([[-1]]),
        )


def test_kept_lengths_hold_no_map() -> None:
    """A service keeps them when the table's next part has removed the file that they lie in."""
    import numpy as np

    from models.retrieval.apart import own_products
    from models.retrieval.gallery import Halves, Rows

    held = drawn()["x"]
    squares = np.vecdot(held.astype("float64"), held.astype("float64"))
    for places in (None, np.arange(50)):
        rows = Rows(held, places, Halves(held.astype("float16"), squares))
        kept = own_products(rows, rows)
        assert (kept == own_products(Rows(held, places), Rows(held, places))).all()
        assert not np.shares_memory(kept, squares)
