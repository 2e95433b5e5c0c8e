"""Pairs of images: the rule against naive answers, prefixes, proportions and exhaustion."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from models.instructcir.pairs import NotEnoughPairs, Pair, Pool, draw_pairs, sample_pairs


def pool(source: str, weight: float = 1.0, **sizes: int) -> Pool:
    """A pool whose images are named after their class."""
    classes = {name: [f"{source}-{name}-{i}" for i in range(n)] for name, n in sizes.items()}
    return Pool(source, weight, classes)


def every_pair(*pools: Pool) -> set[tuple[str, str]]:
    """All ordered pairs, the naive way."""
    return {
        pair
        for each in pools
        for images in each.classes.values()
        for pair in itertools.permutations(images, 2)
    }


def images_of(pairs: list[Pair]) -> list[tuple[str, str]]:
    return [(pair.reference, pair.target) for pair in pairs]


def chi_square(counts: Counter[str], expected: dict[str, float]) -> float:
    """Pearson's statistic."""
    assert set(counts) <= set(expected)
    return sum((counts[name] - want) ** 2 / want for name, want in expected.items())


@pytest.mark.parametrize("seed", range(5))
def test_the_whole_stream_is_every_pair_once(seed: int) -> None:
    pools = [pool("a", x=4, y=3, alone=1), pool("b", 3.0, z=5)]
    pairs = list(draw_pairs(pools, seed))
    assert sorted(images_of(pairs)) == sorted(every_pair(*pools))
    assert len(pairs) == 4 * 3 + 3 * 2 + 5 * 4


def test_pairs_lie_in_the_class_that_they_name() -> None:
    pools = [pool("a", x=9, y=7), pool("b", z=8)]
    by_name = {each.source: each for each in pools}
    for pair in sample_pairs(pools, 90, seed=3):
        members = by_name[pair.source].classes[pair.meta_class]
        assert {pair.reference, pair.target} <= set(members)
        assert pair.reference != pair.target


def test_fewer_pairs_are_the_beginning_of_more() -> None:
    pools = [pool("a", x=12, y=5), pool("b", 2.0, z=6)]
    longest = list(draw_pairs(pools, 11))
    for count in (1, 2, 17, 100, len(longest)):
        assert sample_pairs(pools, count, 11) == longest[:count]


def test_the_seed_decides_and_the_order_of_pools_classes_and_images_does_not() -> None:
    pools = [pool("a", x=12, y=5), pool("b", z=6)]
    turned = [
        Pool(p.source, p.weight, {c: p.classes[c][::-1] for c in reversed(list(p.classes))})
        for p in reversed(pools)
    ]
    assert sample_pairs(pools, 60, 1) == sample_pairs(turned, 60, 1)
    assert sample_pairs(pools, 60, 1) != sample_pairs(pools, 60, 2)


def test_these_pairs_never_change() -> None:
    """Tables are found by seed and rule: another stream would mix two samples in one table."""
    pairs = sample_pairs([pool("a", x=3, y=2), pool("b", z=4)], 8, seed=0)
    assert images_of(pairs) == [
        ("a-y-0", "a-y-1"),
        ("a-y-1", "a-y-0"),
        ("a-x-2", "a-x-0"),
        ("a-x-0", "a-x-2"),
        ("b-z-1", "b-z-3"),
        ("b-z-0", "b-z-1"),
        ("b-z-1", "b-z-2"),
        ("b-z-3", "b-z-2"),
    ]


def test_classes_by_images_and_pools_by_weight() -> None:
    pools = [pool("a", 1.0, x=600, y=300, z=100), pool("b", 3.0, w=800)]
    count = 8000
    pairs = sample_pairs(pools, count, seed=5)
    by_source = Counter(pair.source for pair in pairs)
    assert chi_square(by_source, {"a": count / 4, "b": count * 3 / 4}) < 10.83  # 0.1 %, 1 degree
    in_a = Counter(pair.meta_class for pair in pairs if pair.source == "a")
    total = by_source["a"]
    wanted = {"x": 0.6 * total, "y": 0.3 * total, "z": 0.1 * total}
    assert chi_square(in_a, wanted) < 13.82  # 0.1 %, 2 degrees


def test_both_images_are_uniform_and_every_pair_is_as_likely_as_any_other() -> None:
    only = pool("a", x=6)
    first = Counter(
        f"{p.reference} {p.target}" for seed in range(6000) for p in sample_pairs([only], 1, seed)
    )
    wanted = {f"{a} {b}": 200.0 for a, b in every_pair(only)}
    assert chi_square(first, wanted) < 58.3  # 0.1 %, 29 degrees
    later = Counter(
        f"{p[4].reference} {p[4].target}"
        for seed in range(6000)
        for p in [sample_pairs([only], 5, seed)]
    )
    assert chi_square(later, wanted) < 58.3


def test_too_many_pairs_are_refused_with_the_number_that_exists() -> None:
    with pytest.raises(NotEnoughPairs, match=r"10 pairs were asked for, but only 8 different"):
        sample_pairs([pool("a", x=2, y=3, alone=1)], 10, seed=0)
    with pytest.raises(NotEnoughPairs, match="only 0 different"):
        sample_pairs([], 1, seed=0)
    with pytest.raises(NotEnoughPairs, match="only 0 different"):
        sample_pairs([pool("a", x=1, y=1)], 1, seed=0)


def test_a_pool_that_runs_out_leaves_its_share_to_the_others() -> None:
    pools = [pool("big", x=40), pool("small", 9.0, y=2)]
    pairs = sample_pairs(pools, 200, seed=0)
    assert Counter(pair.source for pair in pairs) == {"big": 198, "small": 2}


def test_one_image_in_two_classes_and_two_pools_is_one_image() -> None:
    shared = ["s", "t", "u"]
    pools = [
        Pool("a", 1.0, {"x": [*shared, "v"], "y": [*shared, "w"]}),
        Pool("b", 1.0, {"": [*shared, "z"]}),
    ]
    for seed in range(10):
        pairs = images_of(list(draw_pairs(pools, seed)))
        assert len(pairs) == len(set(pairs))
        assert set(pairs) == every_pair(*pools)
    with pytest.raises(NotEnoughPairs, match=r"only 24 different"):  # 6 shared, 18 of v, w and z
        sample_pairs(pools, 25, seed=0)


def test_many_pairs_from_many_images_take_seconds_and_never_repeat() -> None:
    pairs = sample_pairs([pool("fashion", a=60_000, b=80_000), pool("nlvr", c=20_000)], 60_000, 1)
    assert len(set(images_of(pairs))) == 60_000


def test_random_pools_against_the_naive_answer() -> None:
    chance = random.Random(0)
    for seed in range(40):
        names = [f"i{n}" for n in range(chance.randint(2, 7))]
        pools = [
            Pool(
                source,
                chance.uniform(0.1, 5),
                {
                    str(c): chance.sample(names, chance.randint(0, len(names)))
                    for c in range(chance.randint(1, 3))
                },
            )
            for source in "ab"
        ]
        drawn = images_of(list(draw_pairs(pools, seed)))
        assert sorted(drawn) == sorted(every_pair(*pools))


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_weights_that_are_no_shares_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        pool("a", weight, x=2)


def test_pools_that_contradict_themselves_are_refused() -> None:
    with pytest.raises(ValueError, match="holds an image twice"):
        Pool("a", 1.0, {"x": ["i", "i"]})
    with pytest.raises(ValueError, match="one name"):
        sample_pairs([pool("a", x=2), pool("a", y=2)], 1, 0)
