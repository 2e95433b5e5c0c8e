"""Seeded pairs of images to write modification texts for (InstructCIR, section III).

A pool is a collection, cut into classes; a pair is two different images of one class. The paper
pairs Fashion200k within its meta classes and NLVR over the whole set, which here is one class. How
it draws and mixes is not printed; the rule here: the pool by its weight, the class in proportion
to its number of images, then two different images of it, ordered, every ordered pair equally
likely and none twice.

A pool may hold groups whose images are not paired with each other (views of one product), and a
rule may narrow the pairs of a class (`models.instructcir.similarity`). Shares of pools and classes
stay the same: what is not allowed is drawn again within the class.

Pairs come one after the other from one stream of random numbers, so that asking for more pairs
never changes the earlier ones: a set of 32k is the beginning of the set of 65k.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from models.instructcir.similarity import Accepts
from models.spelling import agreed, counted

VERSION: Final = 1
"""Raised when the same pools and seed give other pairs."""


Narrowing = Callable[[Sequence[str], Accepts], Accepts]
"""A class's sorted images and the rule of its pool -> the rule for pairs of that class."""


class NotEnoughPairs(ValueError):
    """More pairs were asked for than there are."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Images that may be paired with each other.

    Attributes:
        source: The collection's name.
        weight: Its share of the pairs, relative to the other pools' weights.
        classes: Class -> image ids. An image that lies in two classes takes part in both.
        groups: Image id -> groups that it lies in; two images of one group are not paired.
    """

    source: str
    weight: float
    classes: Mapping[str, Sequence[str]]
    groups: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a weight that is not a share, and images that lie in a class twice."""
        if not 0.0 < self.weight < float("inf"):
            raise ValueError(f"the weight of {self.source!r} must be positive, not {self.weight}")
        for name, images in self.classes.items():
            if len(set(images)) != len(images):
                raise ValueError(f"class {name!r} of {self.source!r} holds an image twice")

    def allows(self, one: str, other: str) -> bool:
        """Whether two images may be a pair."""
        if not self.groups:
            return True
        none = frozenset[str]()
        return self.groups.get(one, none).isdisjoint(self.groups.get(other, none))


@dataclass(frozen=True, slots=True)
class Pair:
    """Two different images, in order, and where they were drawn.

    Attributes:
        reference: Image that the modification starts from.
        target: Image that it leads to.
        source: The pool's name.
        meta_class: The class that both lie in.
    """

    reference: str
    target: str
    source: str
    meta_class: str


def sample_pairs(
    pools: Sequence[Pool], count: int, seed: int, narrowed: Narrowing | None = None
) -> list[Pair]:
    """The first `count` pairs of the stream that a seed starts.

    The order of the pools, their classes and their images plays no part. A class whose pairs are
    used up is left out from then on, and so is a pool: its share then falls to the others. Images
    of equal content in several pools or classes are one image, so their pairs come once, from
    where they are drawn first.

    Args:
        pools: Images to pair.
        count: Number of pairs.
        seed: Of the stream.
        narrowed: Leaves pairs of a class out; None: none.

    Raises:
        NotEnoughPairs: fewer different pairs exist; the message says how many.
        ValueError: two pools have one name.
    """
    pairs = list(itertools.islice(draw_pairs(pools, seed, narrowed), count))
    if len(pairs) < count:
        numbers = [(p.source, len(p.classes)) for p in pools]
        classes = [f"{name} ({n} {agreed(n, 'class', 'classes')})" for name, n in numbers]
        band = " within the band" if narrowed else ""
        raise NotEnoughPairs(
            f"{counted(count, 'pair was', 'pairs were')} asked for, but only "
            f"{counted(len(pairs), 'different ordered pair')} "
            f"{agreed(len(pairs), 'exists', 'exist')} in {', '.join(classes) or 'no pool'}{band}. "
            "Ask for at most that many, or add images"
        )
    return pairs


def draw_pairs(
    pools: Sequence[Pool], seed: int, narrowed: Narrowing | None = None
) -> Iterator[Pair]:
    """Every pair that is allowed, once each, in the order that a seed makes; see `sample_pairs`."""
    ordered = sorted(pools, key=lambda pool: pool.source)
    if len({pool.source for pool in pools}) != len(pools):
        raise ValueError(f"two pools have one name: {', '.join(p.source for p in ordered)}")
    # Of all of Random's methods, the numbers of `random` alone are promised to stay the same.
    chance = Random(f"cirflow/pairs/{VERSION}/{seed}")
    wheels = [_class_wheel(pool) for pool in ordered]
    pool_wheel = _Wheel([pool.weight for pool in ordered])
    for i, wheel in enumerate(wheels):
        if not wheel.is_open:
            pool_wheel.close(i)
    seen: set[tuple[str, str]] = set()
    urns: dict[tuple[int, int], _PairUrn] = {}
    names = [sorted(pool.classes) for pool in ordered]
    while pool_wheel.is_open:
        i = pool_wheel.turn(chance.random())
        k = wheels[i].turn(chance.random())
        name = names[i][k]
        if (i, k) not in urns:
            urns[i, k] = _urn(ordered[i], name, narrowed)
        urn = urns[i, k]
        found = _unseen(urn, seen, chance)
        if not urn.left:
            wheels[i].close(k)
            if not wheels[i].is_open:
                pool_wheel.close(i)
        if found is not None:
            seen.add(found)
            yield Pair(*found, ordered[i].source, name)


def _urn(pool: Pool, name: str, narrowed: Narrowing | None) -> _PairUrn:
    """The pairs of a class, and which of them are allowed."""
    images = sorted(pool.classes[name])
    return _PairUrn(images, pool.allows if narrowed is None else narrowed(images, pool.allows))


def _class_wheel(pool: Pool) -> _Wheel:
    """Classes by their number of images; one image alone makes no pair."""
    sizes = [len(pool.classes[name]) for name in sorted(pool.classes)]
    return _Wheel([size if size > 1 else 0 for size in sizes])


def _unseen(urn: _PairUrn, seen: set[tuple[str, str]], chance: Random) -> tuple[str, str] | None:
    """An allowed pair of the class that no other class or pool gave yet; None if none is left."""
    while urn.left:
        pair = urn.draw(chance.random())
        if pair not in seen and urn.allows(*pair):
            return pair
    return None


class _Wheel:
    """Draws a place in proportion to its weight; places can be closed."""

    def __init__(self, weights: Sequence[float]) -> None:
        self._weights = list(weights)
        self._sums = list(itertools.accumulate(weights))
        self._open = sum(weight > 0 for weight in weights)

    @property
    def is_open(self) -> bool:
        """Whether any place can be drawn."""
        return self._open > 0

    def close(self, place: int) -> None:
        """Never draw this place again."""
        self._open -= self._weights[place] > 0
        self._weights[place] = 0
        self._sums = list(itertools.accumulate(self._weights))

    def turn(self, number: float) -> int:
        """The place that a number from [0, 1) stands for."""
        place = bisect_right(self._sums, number * self._sums[-1])
        while not self._weights[min(place, len(self._weights) - 1)]:  # rounding at the very end
            place -= 1
        return min(place, len(self._weights) - 1)


class _PairUrn:
    """All ordered pairs of some images, drawn without putting back.

    A Fisher-Yates shuffle of all pairs of which only the places that were touched are stored, so
    that a draw costs the same whatever their number is.
    """

    def __init__(self, images: Sequence[str], allows: Accepts) -> None:
        self._images = images
        self.allows = allows
        self._moved: dict[int, int] = {}
        self.left = len(images) * (len(images) - 1)

    def draw(self, number: float) -> tuple[str, str]:
        """The pair that a number from [0, 1) stands for among those left."""
        place = int(number * self.left)
        self.left -= 1
        drawn = self._moved.get(place, place)
        last = self._moved.pop(self.left, self.left)
        if place != self.left:
            self._moved[place] = last
        reference, target = divmod(drawn, len(self._images) - 1)
        return self._images[reference], self._images[target + (target >= reference)]
