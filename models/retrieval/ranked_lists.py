"""Ranked lists of different lengths as arrays of one width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from models.retrieval.metrics import ABSENT, Ints

if TYPE_CHECKING:
    from models.retrieval.gallery import Gallery

Similarities = npt.NDArray[np.float32]
"""(Q, K) of ranked lists, NaN where a list is shorter."""


def padded_lists(lists: Sequence[Sequence[int]], width: int) -> Ints:
    """Gallery indices best first as (Q, width), -1 behind the end of a list."""
    table = np.full((len(lists), width), ABSENT, np.int64)
    for row, indices in enumerate(lists):
        table[row, : len(indices)] = indices
    return table


def padded_similarities(lists: Sequence[Sequence[float]], width: int) -> Similarities:
    """Similarities best first as (Q, width), NaN behind the end of a list."""
    table = np.full((len(lists), width), np.nan, np.float32)
    for row, values in enumerate(lists):
        table[row, : len(values)] = values
    return table


def group_order(members: Ints, images: Similarities | Gallery, vector: Similarities) -> Ints:
    """The members of a query's group, best first, ties by gallery order (CIRR).

    Args:
        members: (S,) gallery indices, -1 behind the end.
        images: (G, d) gallery vectors.
        vector: (d,) the query.

    Returns:
        (S',) the gallery indices without padding.
    """
    from models.retrieval.search import products

    members = np.sort(members)
    members = members[members >= 0]
    return members[np.argsort(-products(vector, images[members]), kind="stable")]


def lists_of_all(count: int, rows: Sequence[int], indices: Ints) -> Ints:
    """The lists of some queries among all; the other queries get an empty list.

    Args:
        count: Q, number of all queries.
        rows: Places of the N queries that have a list.
        indices: (N, K) gallery indices.

    Returns:
        (Q, K), -1 for queries without a list.
    """
    lists = np.full((count, indices.shape[1]), ABSENT, np.int64)
    lists[list(rows)] = indices
    return lists
