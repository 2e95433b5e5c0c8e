"""Names to integers, once: rankings, targets and references as gallery positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from storage.benchmarks.parsing import require_unique
from storage.benchmarks.records import Benchmark, Query

ABSENT = -1
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class IndexedCategory:
    """The queries of one category against one gallery, as integers.

    Attributes:
        gallery: Image names; position is the gallery index.
        queries: The category's queries; position is the row of every array below.
        references: (Q,) gallery index of the reference, -1 if it is not in the gallery.
        targets: (Q, T) gallery indices, the annotated target first; -1 for padding and for
            targets that are not in the gallery (they can only be misses).
        target_counts: (Q,) number of annotated targets, absent ones included, so that a gap
            in the gallery never shrinks a denominator.
        subsets: (Q, S) gallery indices of the group's other members, -1 for absent ones;
            S is 0 without groups.
        negatives: (Q, N) gallery indices of images named as wrong, -1 for padding and for absent
            ones; N is 0 without any.
    """

    gallery: tuple[str, ...]
    queries: tuple[Query, ...]
    references: IntArray
    targets: IntArray
    target_counts: IntArray
    subsets: IntArray
    negatives: IntArray = field(default_factory=lambda: np.empty((0, 0), np.int64))


def index_category(
    benchmark: Benchmark, category: str = "", gallery: Sequence[str] | None = None
) -> IndexedCategory:
    """The integer view of one category.

    Args:
        benchmark: The benchmark.
        category: A key of ``benchmark.galleries``.
        gallery: Names actually searched; by default the whole gallery. Feature rows must be in
            this order.

    Raises:
        AnnotationError: when a gallery name occurs twice.
    """
    names = tuple(benchmark.galleries[category] if gallery is None else gallery)
    require_unique(names, f"{benchmark.name} {benchmark.split} gallery {category!r}")
    codes = {name: position for position, name in enumerate(names)}
    queries = benchmark.queries_of(category)
    return IndexedCategory(
        gallery=names,
        queries=queries,
        references=np.array([codes.get(each.reference, ABSENT) for each in queries], np.int64),
        targets=_encode([each.targets for each in queries], codes),
        target_counts=np.array([len(each.targets) for each in queries], np.int64),
        subsets=_encode([each.subset for each in queries], codes),
        negatives=_encode([each.negatives for each in queries], codes),
    )


def _encode(rows: Sequence[Sequence[str]], codes: Mapping[str, int]) -> IntArray:
    """(Q, longest row) codes, padded on the right with -1."""
    table = np.full((len(rows), max(map(len, rows), default=0)), ABSENT, np.int64)
    for position, row in enumerate(rows):
        table[position, : len(row)] = [codes.get(name, ABSENT) for name in row]
    return table
