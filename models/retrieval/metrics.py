"""Retrieval metrics on integers: one rank table, reached from scores or from ranked lists.

Everything is computed from the *rank* of each right answer, 0 for the best:

    rank = #{s > s_target} + #{s == s_target and index < target index}

which is its place in a stable descending sort (ties follow gallery order) without sorting.
Metrics are kept query by query, from 0 to 1; their means are percent, unrounded. A target that was
not ranked (absent from the gallery, below the end of a list) has rank ``NOT_RANKED`` and stays in
the denominator as a miss.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.spelling import agreed

NOT_RANKED = np.iinfo(np.int64).max
ABSENT = -1
# Rows compared at a time: at CIRR size their scores and masks stay in a core's cache.
_ROWS = 64

Scores = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
Ranks = npt.NDArray[np.int64]
Values = npt.NDArray[np.float64]
"""(Q,) the score of each query in a metric, from 0 to 1; NaN where it does not count."""


@dataclass(frozen=True, slots=True)
class BlockRanks:
    """Ranks of the targets in the whole gallery and, with groups, among the group's members.

    ``full`` has the shape of the targets given, ``subset`` is (Q,) or None.
    """

    full: Ranks
    subset: Ranks | None


def ranks_in_scores(scores: Scores, targets: Ints, excluded: Ints | None = None) -> Ranks:
    """Rank of each target in a block of score rows, by counting.

    Args:
        scores: (B, G), higher is better. -inf is a valid score, NaN is not.
        targets: (B,) or (B, T) gallery indices; -1 for absent or padding.
        excluded: (B,) gallery index taken out of each row (the reference), -1 for none.

    Returns:
        Ranks in the shape of ``targets``; ``NOT_RANKED`` where absent or excluded.

    Raises:
        ValueError: for shapes that disagree, indices outside the gallery, or NaN.
    """
    _check_scores(scores, targets, excluded)
    columns = targets.reshape(len(targets), -1)
    ranks = np.full(columns.shape, NOT_RANKED, np.int64)
    for start in range(0, len(scores), _ROWS):
        rows = slice(start, start + _ROWS)
        block = np.asarray(scores[rows], np.float32)
        if np.isnan(block.max(axis=1)).any():
            raise ValueError(f"scores hold NaN in rows {start} to {start + len(block) - 1}.")
        banned = None if excluded is None else excluded[rows]
        for column in range(columns.shape[1]):
            ranks[rows, column] = _count_ahead(block, columns[rows, column], banned)
    return ranks.reshape(targets.shape)


def ranks_in_score_blocks(
    blocks: Iterable[Scores],
    targets: Ints,
    *,
    excluded: Ints | None = None,
    subsets: Ints | None = None,
) -> BlockRanks:
    """Ranks from a stream of query blocks, each (B, G) over the whole gallery.

    Args:
        blocks: Score blocks in query order; each is read once and may be reused by the caller.
        targets: (Q,) or (Q, T) gallery indices, as in ``ranks_in_scores``.
        excluded: (Q,) gallery index taken out of each row.
        subsets: (Q, S) the group's other members; their ranks need a single (first) target.

    Raises:
        ValueError: when the blocks do not have exactly Q rows in all, or as above.
    """
    full = np.full(targets.shape, NOT_RANKED, np.int64)
    subset = None if subsets is None else np.full(len(targets), NOT_RANKED, np.int64)
    first = targets.reshape(len(targets), -1)[:, 0] if targets.size else targets.reshape(-1)
    start = 0
    for block in blocks:
        rows = slice(start, start + len(block))
        if rows.stop > len(targets):
            queries = f"{len(targets)} {agreed(len(targets), 'query')}"
            raise ValueError(f"score blocks hold more rows than the {queries}.")
        full[rows] = ranks_in_scores(
            block, targets[rows], None if excluded is None else excluded[rows]
        )
        if subsets is not None and subset is not None:
            subset[rows] = ranks_in_subset(block, subsets[rows], first[rows])
        start = rows.stop
    if start != len(targets):
        queries = f"{len(targets)} {agreed(len(targets), 'query')}"
        raise ValueError(f"score blocks hold {start} {agreed(start, 'row')} for {queries}.")
    return BlockRanks(full, subset)


def ranks_in_subset(scores: Scores, subsets: Ints, targets: Ints) -> Ranks:
    """Rank of each target among its group's other members only.

    Args:
        scores: (B, G) over the whole gallery.
        subsets: (B, S) gallery indices without the reference; -1 for absent members.
        targets: (B,) gallery index, one of the row's members, or -1.

    Returns:
        (B,) ranks from 0 to S-1, ties by gallery order; ``NOT_RANKED`` for absent targets.

    Raises:
        ValueError: when a target is present and not a member of its group.
    """
    _check_scores(scores, targets, None)
    _check_indices(subsets, scores, "subsets")
    ranked = targets != ABSENT
    if (~(subsets == targets[:, None]).any(axis=1) & ranked).any():
        raise ValueError("a target is not a member of its group; pass the five other members.")
    rows = np.arange(len(scores))
    members = scores[rows[:, None], subsets.clip(0)]
    own = scores[rows, targets.clip(0)][:, None]
    if np.isnan(members).any() or np.isnan(own).any():
        raise ValueError("scores of group members hold NaN.")
    ahead = (members > own) | ((members == own) & (subsets < targets[:, None]))
    ranks = (ahead & (subsets != ABSENT)).sum(axis=1, dtype=np.int64)
    return np.where(ranked, ranks, NOT_RANKED)


def ranks_in_lists(lists: Ints, targets: Ints) -> Ranks:
    """Rank of each target in its query's ranked list.

    Args:
        lists: (Q, L) distinct gallery indices per row, best first; -1 ends a short list.
        targets: (Q,) or (Q, T) gallery indices; -1 for absent or padding.

    Returns:
        Positions from 0 in the shape of ``targets``; ``NOT_RANKED`` if not in the list.

    Raises:
        ValueError: when the numbers of rows disagree.
    """
    if lists.ndim != 2 or len(lists) != len(targets):
        raise ValueError(f"lists {lists.shape} and targets {targets.shape} must agree in rows.")
    columns = targets.reshape(len(targets), -1)
    ranks = np.full(columns.shape, NOT_RANKED, np.int64)
    for column in range(columns.shape[1]):
        hits = (lists == columns[:, column, None]) & (columns[:, column, None] != ABSENT)
        found = hits.any(axis=1)
        ranks[found, column] = hits[found].argmax(axis=1)
    return ranks.reshape(targets.shape)


def recalls(ranks: Ranks, depths: Iterable[int], name: str = "recall") -> dict[str, Values]:
    """NAME@k: whether a query's (single) target is among the first k. ``ranks`` is (Q,)."""
    return {f"{name}@{k}": (ranks < k).astype(np.float64) for k in depths}


def average_precisions(
    ranks: Ranks, target_counts: Ints, depths: Iterable[int]
) -> dict[str, Values]:
    """map@k: the average precision of each query; arguments as in ``average_precision_at_k``."""
    return {f"map@{k}": average_precision_at_k(ranks, target_counts, k) for k in depths}


def by_aspect(name: str, values: Values, aspects: Sequence[Sequence[str]]) -> dict[str, Values]:
    """NAME/ASPECT: a metric over the queries of each aspect.

    Args:
        name: The metric.
        values: (Q,) of all queries.
        aspects: The aspects of each of the Q queries; a query counts in each of its own.
    """
    return {
        f"{name}/{aspect}": np.where([aspect in own for own in aspects], values, np.nan)
        for aspect in sorted({aspect for own in aspects for aspect in own})
    }


def average(values: Sequence[Values]) -> Values:
    """(Q,) the mean of several metrics, query by query."""
    return np.asarray(np.mean(values, axis=0))


def joined(parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """The queries of several categories, one category after the other."""
    return np.concatenate(parts)


def percent(values: Values) -> float:
    """The mean over the queries that count, in percent; an average precision becomes mAP."""
    return 100.0 * float(values[~np.isnan(values)].mean())


def average_precision_at_k(ranks: Ranks, target_counts: Ints, k: int) -> npt.NDArray[np.float64]:
    """AP@k of each query with several right answers (CIRCO, Baldrati et al. 2023, eq. 1).

    With labels l_r and precisions P_r at the ranks r of right answers,
    AP@k = sum_{r <= k} P_r l_r / min(number of right answers, k).

    Args:
        ranks: (Q, T) ranks of the right answers, ``NOT_RANKED`` for padding.
        target_counts: (Q,) number of right answers by annotation, at least 1.
        k: The cut.

    Returns:
        (Q,) values from 0 to 1.
    """
    if len(target_counts) and target_counts.min() < 1:
        raise ValueError("every query needs at least one right answer to have a precision.")
    ordered = np.sort(ranks, axis=1)
    place = np.arange(1, ordered.shape[1] + 1)  # how many right answers up to this one
    precision = np.where(ordered < k, place / (np.minimum(ordered, k) + 1.0), 0.0)
    return precision.sum(axis=1) / np.minimum(target_counts, k)


def average_precision(ranks: Ranks, target_counts: Ints) -> Values:
    """AP over whole rankings by the trapezoid rule (i-CIR, Psomas et al. 2025, its evaluation).

    With right answers at the ranks r_1 < r_2 < ... from 0, AP is the mean over the right answers
    of ((j - 1) / r_j + j / (r_j + 1)) / 2, the first term being 1 at rank 0. (The released code
    adds 1e-5 to their number.)

    Args:
        ranks: (Q, T) ranks of the right answers, ``NOT_RANKED`` for padding.
        target_counts: (Q,) number of right answers by annotation, at least 1.

    Returns:
        (Q,) values from 0 to 1.
    """
    ordered = np.sort(ranks, axis=1)
    before = np.arange(ordered.shape[1], dtype=np.float64)
    found = ordered < NOT_RANKED
    place = np.where(found, ordered, 1).astype(np.float64)
    left = np.where(place == 0, 1.0, before / np.maximum(place, 1.0))
    steps = np.where(found, (left + (before + 1.0) / (place + 1.0)) / 2, 0.0)
    return np.asarray(steps.sum(axis=1) / target_counts)


def negatives_found(negatives: Ranks, hits: Ranks, k: int) -> dict[str, Values]:
    """How high images named as wrong are ranked; lower is better.

    neg@k is the share of the first k places that they take, any_neg@k whether one is there, and
    neg_before_pos whether one is ranked above the first right answer. (PinPoint, arXiv 2603.04598,
    reports negatives; its formulas were not seen, these are ours.)

    Args:
        negatives: (Q, N) their ranks, ``NOT_RANKED`` for padding and behind the end of a list.
        hits: (Q,) ranks of the best-ranked right answers.
        k: The cut.
    """
    if not negatives.shape[1]:
        negatives = np.full((len(hits), 1), NOT_RANKED, np.int64)
    share = (negatives < k).sum(axis=1) / k
    return {
        f"neg@{k}": share,
        f"any_neg@{k}": (share > 0).astype(np.float64),
        "neg_before_pos": (negatives.min(axis=1) < hits).astype(np.float64),
    }


def _count_ahead(block: Scores, targets: Ints, excluded: Ints | None) -> Ranks:
    """(B,) ranks of one target per row; the excluded image never counts as ahead."""
    rows = np.arange(len(block))
    own = block[rows, targets.clip(0)]
    ahead = np.count_nonzero(block > own[:, None], axis=1)
    level = np.count_nonzero(block >= own[:, None], axis=1)
    for row in np.flatnonzero(level - ahead > 1):  # ties are rare: only these rows look at order
        ahead[row] += np.count_nonzero(block[row, : targets[row].clip(0)] == own[row])
    lost = targets == ABSENT
    if excluded is not None:
        score = block[rows, excluded.clip(0)]
        before = (score > own) | ((score == own) & (excluded < targets))
        ahead -= before & (excluded != ABSENT)
        lost |= targets == excluded
    return np.where(lost, NOT_RANKED, ahead)


def _check_scores(scores: Scores, targets: Ints, excluded: Ints | None) -> None:
    if scores.ndim != 2 or not scores.shape[1] or len(targets) != len(scores):
        raise ValueError(f"scores {scores.shape} and targets {targets.shape} must agree in rows.")
    _check_indices(targets, scores, "targets")
    if excluded is not None:
        if excluded.shape != (len(scores),):
            raise ValueError(f"excluded {excluded.shape} must be one index for each score row.")
        _check_indices(excluded, scores, "excluded")


def _check_indices(indices: Ints, scores: Scores, what: str) -> None:
    if indices.size and (indices.min() < ABSENT or indices.max() >= scores.shape[1]):
        raise ValueError(
            f"{what} run from {indices.min()} to {indices.max()}; allowed are -1 (absent) to "
            f"{scores.shape[1] - 1}."
        )
