"""Predictions files in the benchmarks' submission forms, checked and turned into integers.

A file is either wholly usable or refused: nothing is dropped, padded or guessed, since each
of those would change a score silently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from storage.benchmarks.errors import PredictionError
from storage.benchmarks.indexing import IndexedCategory, IntArray, index_category
from storage.benchmarks.parsing import listing, read_json, shorten
from storage.benchmarks.records import Benchmark, Query
from storage.words import agreed

RANKING_DEPTH = 50
SUBSET_DEPTH = 3

Kind = Literal["ranking", "subset"]
RawLists = Mapping[str, Mapping[str, Any]]  # category -> key in the file -> claimed list


def image_name(value: Any, where: str) -> str:
    """The name of an image, which is a string.

    Raises:
        PredictionError: It is not a string.
    """
    if not isinstance(value, str):
        raise PredictionError(f"{where}: {shorten(value)} is not an image name (a string).")
    return value


def coco_id(value: Any, where: str) -> str:
    """A COCO id, as an integer or as decimal digits (CIRCO's server casts both).

    Raises:
        PredictionError: It is neither.
    """
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 12:
        return str(int(value))
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12:
        return str(value)
    raise PredictionError(
        f"{where}: {shorten(value)} is not a COCO image id (an integer from 0, below 10^12)."
    )


@dataclass(frozen=True, slots=True)
class PredictionForm:
    """How one benchmark writes predictions.

    Attributes:
        lists: From a benchmark and the parsed file to the kind of ranking and, by category, the
            claimed list of each query, in query order (see `in_query_order`).
        to_name: From a list's entry, and where it stands, to the image's name.
        whole: Whether each list ranks its whole gallery.
    """

    lists: Callable[[Benchmark, Mapping[str, Any]], tuple[Kind, RawLists]]
    to_name: Callable[[Any, str], str] = image_name
    whole: bool = False


@dataclass(frozen=True)
class Predictions:
    """Checked ranked lists of every query, as gallery indices.

    Attributes:
        kind: ``ranking`` over the gallery, or ``subset`` over the group's other members.
        categories: Category -> integer view of its queries.
        lists: Category -> (Q, depth) gallery indices, best first, in query order.
    """

    kind: Kind
    categories: Mapping[str, IndexedCategory]
    lists: Mapping[str, IntArray]


def read_predictions(benchmark: Benchmark, form: PredictionForm, path: str | Path) -> Predictions:
    """Read and check a predictions file.

    Raises:
        PredictionError: naming the file, the query, the value found and the allowed ones.
    """
    data = read_json(Path(path), PredictionError)
    try:
        return check_predictions(benchmark, form, data)
    except PredictionError as problem:
        raise PredictionError(f"{path}: {problem}") from None


def check_predictions(
    benchmark: Benchmark, form: PredictionForm, data: Any, *, exact: bool = False
) -> Predictions:
    """Check parsed predictions against a benchmark and make them integers.

    Args:
        benchmark: Annotations of the split the predictions are for.
        form: How the benchmark writes predictions.
        data: The parsed file.
        exact: Refuse lists longer than the depth (a submission) instead of reading their head.

    Raises:
        PredictionError: saying the value found, the allowed ones and the next step.
    """
    if not isinstance(data, dict):
        raise PredictionError(f"expected a JSON object, found {shorten(data)}.")
    kind, raw = form.lists(benchmark, data)
    categories: dict[str, IndexedCategory] = {}
    tables: dict[str, IntArray] = {}
    for category in benchmark.categories:
        labels = [f"{category} query {key}".lstrip() for key in raw[category]]
        lists = [
            _read_list(each, where, form.to_name)
            for each, where in zip(raw[category].values(), labels, strict=True)
        ]
        view = index_category(benchmark, category, _gallery(benchmark, category, lists))
        rules = _rules(benchmark, category, kind, view, exact, form.whole)
        categories[category] = view
        tables[category] = _check_lists(rules, view, lists, labels)
    return Predictions(kind, categories, tables)


@dataclass(frozen=True, slots=True)
class _Rules:
    """The rules that every list of one category must obey."""

    kind: Kind
    depth: int
    exact: bool
    exclude_reference: bool
    split: str


def lists_by_category(
    benchmark: Benchmark,
    data: Mapping[str, Any],
    kind: Kind = "ranking",
    remedy: str = "Give exactly these.",
) -> tuple[Kind, RawLists]:
    """The form {category: {query index: names}}; without categories {query index: names} as well.

    Raises:
        PredictionError: Categories or query indices differ from those of the annotations.
    """
    loaded = benchmark.categories
    if loaded == ("",) and "" not in data:
        data = {"": data}
    if set(data) != set(loaded):
        raise PredictionError(
            f"categories are {listing(sorted(data))}; the annotations hold {listing(loaded)}. "
            f"{remedy}"
        )
    lists: dict[str, Mapping[str, Any]] = {}
    for category in loaded:
        if not isinstance(data[category], dict):
            raise PredictionError(
                f"{category}: expected an object query index -> names, "
                f"found {shorten(data[category])}."
            )
        wanted = [str(row) for row in range(len(benchmark.queries_of(category)))]
        lists[category] = in_query_order(data[category], wanted, f"{category} query index".lstrip())
    return kind, lists


def in_query_order(lists: Mapping[str, Any], wanted: Sequence[str], what: str) -> Mapping[str, Any]:
    """The lists under the wanted keys, in their order; `what` names the keys in errors.

    Raises:
        PredictionError: A list is absent, or a list has a key that is not wanted.
    """
    absent = [key for key in wanted if key not in lists]
    known = set(wanted)
    unknown = [key for key in lists if key not in known]
    if absent or unknown:
        raise PredictionError(
            f"{len(wanted)} {agreed(len(wanted), 'list is', 'lists are')} needed, one per {what}; "
            f"{len(absent)} {agreed(len(absent), 'is', 'are')} absent ({listing(absent)}) and "
            f"{len(unknown)} {agreed(len(unknown), 'is', 'are')} not of this split "
            f"({listing(unknown)}). Is the file for another split?"
        )
    return {key: lists[key] for key in wanted}


def _read_list(raw: Any, where: str, to_name: Callable[[Any, str], str]) -> list[str]:
    if not isinstance(raw, list):
        raise PredictionError(f"{where}: expected a list, best first, found {shorten(raw)}.")
    names = [to_name(value, where) for value in raw]
    if len(set(names)) < len(names):
        seen: set[str] = set()
        repeated = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise PredictionError(f"{where}: {repeated!r} occurs twice; an image is ranked once.")
    return names


def _gallery(benchmark: Benchmark, category: str, lists: list[list[str]]) -> tuple[str, ...]:
    """The gallery, or without a listing (CIRCO) every id that a list or a query names."""
    if benchmark.galleries[category]:
        return benchmark.galleries[category]
    names = {name for each in lists for name in each}
    for query in benchmark.queries_of(category):
        names.update((query.reference, *query.targets))
    return tuple(sorted(names))


def _rules(
    benchmark: Benchmark,
    category: str,
    kind: Kind,
    view: IndexedCategory,
    exact: bool,
    whole: bool,
) -> _Rules:
    """The published depth, or the number of candidates where that is smaller (small worlds)."""
    without_reference = kind == "subset" or benchmark.exclude_reference
    if kind == "subset":
        depth = min(SUBSET_DEPTH, view.subsets.shape[1])
    elif benchmark.galleries[category]:
        most = len(view.gallery) - int(without_reference)
        depth = most if whole else min(RANKING_DEPTH, most)
    else:
        depth = RANKING_DEPTH
    return _Rules(kind, depth, exact, without_reference, f"{benchmark.name} {benchmark.split}")


def _check_lists(
    rules: _Rules, view: IndexedCategory, lists: list[list[str]], labels: list[str]
) -> IntArray:
    """(Q, depth) gallery indices of lists that passed every check."""
    codes = {name: position for position, name in enumerate(view.gallery)}
    table = np.empty((len(lists), rules.depth), np.int64)
    for row, (query, names, where) in enumerate(zip(view.queries, lists, labels, strict=True)):
        _check_length(rules, names, where)
        _check_members(rules, query, names, codes, where)
        table[row] = [codes[name] for name in names[: rules.depth]]
    return table


def _check_length(rules: _Rules, names: list[str], where: str) -> None:
    if len(names) < rules.depth or (rules.exact and len(names) > rules.depth):
        wanted = "exactly" if rules.exact else "at least"
        raise PredictionError(
            f"{where}: {len(names)} {agreed(len(names), 'name')}, {wanted} {rules.depth} "
            f"{agreed(rules.depth, 'is', 'are')} needed. Rank to that depth and write the file "
            "again."
        )


def _check_members(
    rules: _Rules, query: Query, names: list[str], codes: Mapping[str, int], where: str
) -> None:
    if rules.exclude_reference and query.reference in names:
        raise PredictionError(
            f"{where}: the reference image {query.reference!r} is in the list. The protocol "
            "removes it before ranking; remove it and rank one deeper."
        )
    allowed = query.subset if rules.kind == "subset" else codes
    for name in names:
        if name not in allowed:
            group = rules.kind == "subset"
            images = f"the {len(codes)} {agreed(len(codes), 'gallery image')}"
            kept = listing(query.subset) if group else images
            hint = " Names carry no folder or extension." if "/" in name or "." in name else ""
            raise PredictionError(
                f"{where}: {shorten(name)} is not one of {kept} of {rules.split}.{hint}"
            )
