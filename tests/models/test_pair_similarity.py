"""Bands of similarity: against naive ranks of naive cosines."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import numpy as np
import pytest

from models.instructcir.pairs import NotEnoughPairs, Pool, draw_pairs, sample_pairs
from models.instructcir.similarity import Similarity, check_band, spread

IDS = [f"image{n:02d}" for n in range(40)]


def vectors(seed: int = 0, count: int = len(IDS)) -> Any:
    """Features with some structure, of different lengths."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(count, 24)) + 2.0 * rng.normal(size=24)
    return (base * rng.uniform(0.1, 30, (count, 1))).astype(np.float32)


def naive(features: Any) -> dict[tuple[str, str], float]:
    """The cosine of every ordered pair, the textbook way."""
    unit = features / np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    rows = dict(zip(IDS, unit, strict=False))
    return {(a, b): float(rows[a] @ rows[b]) for a, b in itertools.permutations(rows, 2)}


def in_band(
    images: list[str], cosines: dict[tuple[str, str], float], low: float, high: float
) -> Any:
    """The ordered pairs of a class whose rank lies in the band, by sorting all of them."""
    ranked = sorted(itertools.combinations(images, 2), key=lambda pair: cosines[pair])
    first, last = int(low * len(ranked)), -int(-high * len(ranked) // 1)
    return {p for pair in ranked[first:last] for p in (pair, pair[::-1])}


def test_cosines_are_those_of_the_textbook() -> None:
    features = vectors()
    cosines = naive(features)
    found = Similarity(IDS, features).of(list(cosines))
    assert found == pytest.approx(list(cosines.values()), abs=2e-4)


@pytest.mark.parametrize(("low", "high"), [(0.5, 1.0), (0.0, 0.25), (0.8, 0.9), (0.0, 1.0)])
def test_the_stream_is_every_pair_of_the_band_once(low: float, high: float) -> None:
    features = vectors(3)
    classes = {"a": IDS[:25], "b": IDS[25:]}
    similarity = Similarity(IDS, features)
    pairs = [
        (p.reference, p.target)
        for p in draw_pairs([Pool("s", 1.0, classes)], 5, similarity.band(low, high))
    ]
    cosines = dict(zip(naive(features), similarity.of(list(naive(features))), strict=True))
    wanted = [in_band(images, cosines, low, high) for images in classes.values()]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == set().union(*wanted)
    fewer = sample_pairs([Pool("s", 1.0, classes)], 7, 5, similarity.band(low, high))
    assert [(p.reference, p.target) for p in fewer] == pairs[:7]


def test_the_whole_band_draws_what_no_band_draws() -> None:
    pools = [Pool("s", 1.0, {"a": IDS[:10], "b": IDS[10:]})]
    rule = Similarity(IDS, vectors()).band(0.0, 1.0)
    assert sample_pairs(pools, 100, 1, rule) == sample_pairs(pools, 100, 1)


def test_shares_of_classes_stay_those_of_their_images() -> None:
    classes = {"a": IDS[:30], "b": IDS[30:]}
    rule = Similarity(IDS, vectors()).band(0.7, 1.0)
    first = Counter(
        sample_pairs([Pool("s", 1.0, classes)], 1, seed, rule)[0].meta_class for seed in range(800)
    )
    assert 560 < first["a"] < 640  # 600 expected; four standard deviations are 49


def test_a_large_class_is_bounded_by_drawn_pairs() -> None:
    ids = [f"{n:03d}" for n in range(300)]  # 44,850 pairs, more than are ranked
    similarity = Similarity(ids, vectors(1, 300))
    rule = similarity.band(0.9, 1.0)(ids, lambda one, other: True)
    share = np.mean([rule(a, b) for a, b in list(itertools.combinations(ids, 2))[::15]])
    assert share == pytest.approx(0.1, abs=0.02)


def test_images_of_one_group_are_never_paired() -> None:
    groups = {image: frozenset({image[:6]}) for image in IDS}  # by tens
    groups[IDS[0]] = frozenset({"image0", "image3"})
    pool = Pool("s", 1.0, {"": IDS}, groups)
    apart = {
        (a, b)
        for a, b in itertools.permutations(IDS, 2)
        if a[:6] != b[:6] and {a, b} not in [{IDS[0], other} for other in IDS[30:]]
    }
    assert {(p.reference, p.target) for p in draw_pairs([pool], 2)} == apart
    banded = Similarity(IDS, vectors()).band(0.5, 1.0)
    ranked = sorted(Similarity(IDS, vectors()).of([p for p in apart if p[0] < p[1]]))
    kept = list(draw_pairs([pool], 2, banded))
    assert len(kept) == 2 * (len(ranked) - len(ranked) // 2)  # half of the pairs that are allowed
    with pytest.raises(NotEnoughPairs, match="only 0 different"):
        sample_pairs([Pool("s", 1.0, {"": IDS[:3]}, groups)], 1, 0, banded)


@pytest.mark.parametrize("band", [(0.5, 0.5), (0.9, 0.2), (-0.1, 1.0), (0.5, 1.1), (0.5, 0.505)])
def test_what_is_not_a_band_is_refused(band: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"such as 0\.5,1 for the more similar half; not"):
        check_band(*band)


def test_features_that_say_nothing_are_refused() -> None:
    features = vectors()
    features[3] = 0
    with pytest.raises(ValueError, match="zero or not finite"):
        Similarity(IDS, features)
    features[3] = np.inf
    with pytest.raises(ValueError, match="zero or not finite"):
        Similarity(IDS, features)


def test_the_spread_by_hand() -> None:
    assert spread([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]) == pytest.approx(
        {"10 %": 0.1, "50 %": 0.5, "90 %": 0.9}
    )
    assert spread([]) == {}
