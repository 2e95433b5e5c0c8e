"""How alike two images are, and bands of similarity that pairs are drawn from.

InstructCIR names very dissimilar pairs as a limit of its random pairs: their texts describe both
images instead of a change. A band keeps a part of a class's pairs by the rank of their cosine
similarity, for example the more similar half.

Every machine finds the same pairs: vectors are rounded to 16 bits, and their products are exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from math import ceil, sqrt
from random import Random
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from models.protocols import FloatArray

VERSION: Final = 1
"""Raised when the same vectors and band give other pairs."""
RANKED: Final = 20_000
"""Pairs of a class that bounds are found from: all of a small class, drawn ones of a large one."""
NARROWEST: Final = 0.01
"""Least width of a band: pairs outside of it are drawn and put away."""
_SCALE: Final = 32_767

Accepts = Callable[[str, str], bool]
"""Tells whether two images may be a pair."""


def check_band(low: float, high: float) -> None:
    """Refuse what is not a band.

    Raises:
        ValueError: says which bands are allowed.
    """
    if not (0.0 <= low < high <= 1.0 and high - low >= NARROWEST - 1e-9):
        raise ValueError(
            f"a band of similarity is two shares LOW,HIGH with 0 <= LOW, HIGH <= 1 and HIGH at "
            f"least LOW + {NARROWEST}, such as 0.5,1 for the more similar half; not {low},{high}"
        )


class Similarity:
    """Cosine similarities of some images.

    Args:
        ids: Of the images.
        vectors: Their features (len(ids), d), of any length but zero.
    """

    def __init__(self, ids: Sequence[str], vectors: FloatArray) -> None:
        self._row = {image: row for row, image in enumerate(ids)}
        wide = np.abs(vectors).max(axis=1, keepdims=True).astype(np.float64)
        if not (np.isfinite(wide).all() and (wide > 0).all()):
            raise ValueError("a feature is zero or not finite")
        # Sums of products of 16 bit numbers are whole numbers below 2^53: exact in any order.
        self._codes = np.rint(vectors.astype(np.float64) * _SCALE / wide).astype(np.int16)
        self._squares = [float(row @ row) for row in map(self._wide, range(len(ids)))]

    def _wide(self, row: int) -> npt.NDArray[np.float64]:
        return self._codes[row].astype(np.float64)

    def cosine(self, one: str, other: str) -> float:
        """The cosine of two images."""
        a, b = self._row[one], self._row[other]
        dot = float(self._wide(a) @ self._wide(b))
        return dot / sqrt(self._squares[a] * self._squares[b])

    def of(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The cosine of each pair."""
        return [self.cosine(one, other) for one, other in pairs]

    def band(self, low: float, high: float) -> Callable[[Sequence[str], Accepts], Accepts]:
        """A rule: (a class's sorted images, other rule) -> pairs of the class in the band.

        Args:
            low: Share of the class's pairs that are less similar than the band.
            high: Share below the band's upper end; 1 takes the most similar pairs too.

        Raises:
            ValueError: that is not a band.
        """
        check_band(low, high)

        def rule(images: Sequence[str], allowed: Accepts) -> Accepts:
            least, most = self._bounds(images, allowed, low, high)

            def accepts(one: str, other: str) -> bool:
                return allowed(one, other) and least <= self.cosine(one, other) <= most

            return accepts

        return rule

    def _bounds(
        self, images: Sequence[str], allowed: Accepts, low: float, high: float
    ) -> tuple[float, float]:
        """The least and the most similarity in a band; both are similarities of pairs."""
        ranked = sorted(self.of([p for p in _ranked(images) if allowed(*p)]))
        if not ranked:
            return 1.0, -1.0
        first = min(int(low * len(ranked)), len(ranked) - 1)
        last = max(first, ceil(high * len(ranked)) - 1)
        return ranked[first], ranked[last]


def _ranked(images: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs of a class whose similarities give the bounds."""
    if len(images) * (len(images) - 1) // 2 <= RANKED:
        return list(itertools.combinations(images, 2))
    chance = Random(f"cirflow/similarity/{VERSION}")
    pairs = []
    for _ in range(RANKED):
        one = int(chance.random() * len(images))
        other = int(chance.random() * (len(images) - 1))
        pairs.append((images[one], images[other + (other >= one)]))
    return pairs


def spread(similarities: Sequence[float]) -> Mapping[str, float]:
    """The 10th, 50th and 90th percentile of some similarities, by name; empty without any."""
    if not similarities:
        return {}
    found: Any = np.percentile(np.asarray(similarities), (10, 50, 90))
    return dict(zip(("10 %", "50 %", "90 %"), map(float, found), strict=True))
