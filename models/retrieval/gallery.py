"""Gallery features that lie in a file, and the vectors that a method ranks by, in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.retrieval.search import GALLERY_BLOCK, Features, Ints, as_float32

Floats = npt.NDArray[np.float32]

MADE_ROWS = 512
"""Rows whose vectors are made at a time: their features stay in a core's cache."""


@dataclass(frozen=True)
class Halves:
    """A matrix in float16, which finds candidates for one query.

    Attributes:
        vectors: (N, d) float16.
        squares: (N,) squares of the lengths before vectors were rounded.
    """

    vectors: npt.NDArray[np.float16]
    squares: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rows:
    """Some rows of a matrix in memory or mapped; nothing is read before a block is asked for.

    Attributes:
        matrix: (N, d) float16 or float32.
        places: (G,) their places, in the order wanted; None: all N.
        halves: the matrix in float16; None: it is not there.
    """

    matrix: Features
    places: Ints | None = None
    halves: Halves | None = None

    @classmethod
    def at(cls, matrix: Features, places: Ints, halves: Halves | None = None) -> Rows:
        """The rows at some places; all in order are taken as blocks, which copies nothing."""
        whole = len(places) == len(matrix) and bool((places[1:] > places[:-1]).all())
        return cls(matrix, None if whole else places, halves)

    def __len__(self) -> int:
        """G."""
        return len(self.matrix if self.places is None else self.places)

    def __getitem__(self, rows: slice | Ints) -> Floats:
        """(g, d) some of them in float32."""
        return as_float32(self.matrix[rows if self.places is None else self.places[rows]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """(G, d) all of them."""
        return np.asarray(self[:], dtype)


@dataclass(frozen=True)
class Gallery:
    """The vectors of a gallery, made from its features when a block is asked for.

    Attributes:
        features: Feature -> its (G, d) rows.
        make: From (g, d) features of some images to their (g, e) vectors, row by row.
    """

    features: Mapping[str, Rows]
    make: Callable[[Mapping[str, Floats]], npt.NDArray[Any]]

    def __len__(self) -> int:
        """G, the number of images."""
        return len(next(iter(self.features.values())))

    def __getitem__(self, rows: slice | Ints) -> Floats:
        """(g, e) the vectors of some images in float32."""
        places = np.arange(len(self))[rows] if isinstance(rows, slice) else rows
        out = np.empty((0, 0), np.float32)
        for start, piece in _pieces(rows, places):
            made = self.make({name: own[piece] for name, own in self.features.items()})
            if len(made) == len(places):
                return made.astype(np.float32, copy=False)
            if not start:  # written in place: pieces that are kept until the last leave the cache
                out = np.empty((len(places), made.shape[1]), np.float32)
            out[start : start + len(made)] = made
        return out

    def blocks(self, size: int = GALLERY_BLOCK) -> Iterator[Floats]:
        """All of them, in order."""
        for start in range(0, len(self), size):
            yield self[start : start + size]


def _pieces(rows: slice | Ints, places: Ints) -> Iterator[tuple[int, slice | Ints]]:
    """The rows, MADE_ROWS at a time, with the number of the first; contiguous ones as slices."""
    for start in range(0, max(1, len(places)), MADE_ROWS):
        piece = places[start : start + MADE_ROWS]
        is_run = isinstance(rows, slice) and len(piece)
        yield start, slice(int(piece[0]), int(piece[-1]) + 1) if is_run else piece
