"""FashionIQ (Wu et al., CVPR 2021): product photographs, two captions per query, categories.

Layout: ``captions/cap.{category}.{split}.json``, ``image_splits/split.{category}.{split}.json``
and ``images/<ASIN>.{jpg|png}``. A category counts as present when both of its files exist.
Predictions: ``{category: {query index: names}}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from storage.benchmarks.errors import AnnotationError
from storage.benchmarks.facts import BenchmarkFacts, Metrics, Split
from storage.benchmarks.parsing import (
    choose,
    find_root,
    listing,
    read_json,
    require_field,
    require_names,
    require_records,
)
from storage.benchmarks.predictions import Kind, PredictionForm, RawLists, lists_by_category
from storage.benchmarks.records import Benchmark, Query

SPLITS = (
    Split(name="train", offered=False),
    Split(name="val"),
    Split(name="test", targets=False, offered=False),
)
CATEGORIES = ("dress", "shirt", "toptee")
JOINS = ("both", "c1c2", "c2c1")
GALLERIES = ("split", "union")
EMPTY_SIDES = ("drop", "keep")
EXTENSIONS = ("jpg", "png", "jpeg")
STRIPPED = ".?, "  # SEARLE's family of methods strips these from both ends of a caption
FOLDERS = ("fashioniq", "FashionIQ", "fashionIQ", "fashion-iq", "fashionIQ_dataset")


def load_fashioniq(
    root: Path,
    split: str,
    *,
    join: str = "c1c2",
    gallery: str = "split",
    empty_side: str = "drop",
    categories: Sequence[str] | None = None,
    exclude_reference: bool = False,
) -> Benchmark:
    """Annotations of one FashionIQ split; images are looked for later.

    Args:
        root: Folder with ``captions`` and ``image_splits`` (or its parent).
        split: ``val``, ``train`` or ``test`` (targets hidden).
        join: "first and second" (``c1c2``: CIReVL, CVSI), "second and first" (``c2c1``:
            Pic2Word), or ``both`` with features averaged (SEARLE, LinCIR).
        empty_side: A caption that is empty: ``drop``, or ``keep`` and read "first and " as the
            published programs do.
        gallery: ``split``: every image of the category's split (the protocol); ``union``: only
            its targets and references (the smaller gallery of some papers).
        categories: Which to load; None loads every category whose files exist.
        exclude_reference: Take the reference out of the ranking (the protocol keeps it).

    Raises:
        AnnotationError: for unknown values, absent files or broken records.
    """
    choose("split", split, [each.name for each in SPLITS])
    choose("join", join, JOINS)
    choose("gallery", gallery, GALLERIES)
    choose("empty_side", empty_side, EMPTY_SIDES)
    choose("exclude_reference", exclude_reference, (True, False))
    root = find_root(root, FOLDERS, Path("captions"))
    present = _present_categories(root, split, categories)
    queries: list[Query] = []
    galleries: dict[str, tuple[str, ...]] = {}
    for category in present:
        names = _read_split(root, category, split)
        asked = _read_queries(root, category, split, (join, empty_side), frozenset(names))
        queries += asked
        galleries[category] = names if gallery == "split" else _used_images(names, asked)
    images = dict.fromkeys(name for each in galleries.values() for name in each)
    known = known_categories(root, split)
    absent = tuple(category for category in known if category not in present)
    return Benchmark(
        name="fashioniq",
        split=split,
        queries=tuple(queries),
        galleries=galleries,
        image_candidates={
            name: tuple(str(root / "images" / f"{name}.{kind}") for kind in EXTENSIONS)
            for name in images
        },
        protocol={
            "split": split,
            "gallery": gallery,
            "exclude_reference": exclude_reference,
            "join": join,
            "empty_side": empty_side,
            "categories": present,
            "absent_categories": absent,
            "average_over": f"{len(present)} of {len(known)} categories: {', '.join(present)}",
            "empty_captions": sum(2 - len(query.captions) for query in queries),
        },
    )


def join_captions(captions: Sequence[str], join: str, empty_side: str = "drop") -> tuple[str, ...]:
    """The readings of a query's captions: one text, or both orders for ``both``.

    Captions that are empty once stripped are dropped, so that no text begins or ends in "and";
    or they are kept.
    """
    kept = clean_captions(captions)
    if empty_side == "keep":
        kept = tuple(caption.strip(STRIPPED) for caption in captions)
    forward, backward = " and ".join(kept), " and ".join(reversed(kept))
    if len(kept) < 2 or join == "c1c2":
        return (forward,)
    return (backward,) if join == "c2c1" else (forward, backward)


def clean_captions(captions: Sequence[str]) -> tuple[str, ...]:
    """Captions stripped of stray punctuation, empty ones dropped."""
    return tuple(text for text in (caption.strip(STRIPPED) for caption in captions) if text)


def known_categories(root: Path, split: str) -> tuple[str, ...]:
    """The published three categories and a folder's own; its own alone if it has files of no other.

    So benchmarks in FashionIQ's layout with other categories are read in the same way.
    """
    named = (path.name.split(".") for path in (root / "captions").glob(f"cap.*.{split}.json"))
    found = sorted({parts[1] for parts in named if len(parts) == 4})
    own = tuple(name for name in found if name not in CATEGORIES)
    return own if own and len(own) == len(found) else (*CATEGORIES, *own)


def _present_categories(root: Path, split: str, asked: Sequence[str] | None) -> tuple[str, ...]:
    known = known_categories(root, split)
    present = tuple(
        category
        for category in known
        if _captions_path(root, category, split).exists()
        and _split_path(root, category, split).exists()
    )
    if asked is None:
        if not present:
            raise AnnotationError(
                f"{root}: no category has both captions/cap.CATEGORY.{split}.json and "
                f"image_splits/split.CATEGORY.{split}.json. Known: {', '.join(known)}."
            )
        return present
    if isinstance(asked, str) or not asked:
        raise AnnotationError(f"categories={asked!r}: give a list out of {listing(known)}.")
    for category in asked:
        choose("categories", category, known)
        if category not in present:
            raise AnnotationError(
                f"{category}: {_captions_path(root, category, split)} or "
                f"{_split_path(root, category, split)} is absent. Present: {listing(present)}."
            )
    return tuple(category for category in known if category in asked)


def _captions_path(root: Path, category: str, split: str) -> Path:
    return root / "captions" / f"cap.{category}.{split}.json"


def _split_path(root: Path, category: str, split: str) -> Path:
    return root / "image_splits" / f"split.{category}.{split}.json"


def _read_split(root: Path, category: str, split: str) -> tuple[str, ...]:
    path = _split_path(root, category, split)
    names = require_names(read_json(path), str(path))
    for name in names:
        if not name.isalnum():  # names become file names
            raise AnnotationError(f"{path}: {name!r} is not an ASIN (letters and digits).")
    return names


def _read_queries(
    root: Path, category: str, split: str, form: tuple[str, str], names: frozenset[str]
) -> list[Query]:
    path = _captions_path(root, category, split)
    return [
        _read_query(record, f"{category}/{row}", category, form, names, f"{path}, record {row}")
        for row, record in enumerate(require_records(read_json(path), path))
    ]


def _read_query(
    record: Any,
    query_id: str,
    category: str,
    form: tuple[str, str],
    names: frozenset[str],
    where: str,
) -> Query:
    captions = require_field(record, "captions", list, where)
    if not all(isinstance(caption, str) for caption in captions) or len(captions) != 2:
        raise AnnotationError(f"{where}: expected exactly two captions.")
    reference = require_field(record, "candidate", str, where)
    targets = (require_field(record, "target", str, where),) if "target" in record else ()
    for name in (reference, *targets):
        if name not in names:
            raise AnnotationError(f"{where}: {name!r} is not an image of the {category} split.")
    text, *alternatives = join_captions(captions, *form)
    return Query(
        query_id=query_id,
        reference=reference,
        text=text,
        targets=targets,
        category=category,
        captions=clean_captions(captions),
        alternatives=tuple(alternatives),
    )


def _used_images(names: tuple[str, ...], queries: list[Query]) -> tuple[str, ...]:
    used = {name for query in queries for name in (query.reference, *query.targets)}
    return tuple(name for name in names if name in used)


def _lists(benchmark: Benchmark, data: Mapping[str, Any]) -> tuple[Kind, RawLists]:
    remedy = "Give exactly these, add the other annotation files, or choose with categories=[...]."
    return lists_by_category(benchmark, data, remedy=remedy)


BENCHMARK = BenchmarkFacts(
    name="fashioniq",
    title="FashionIQ",
    load=load_fashioniq,
    splits=SPLITS,
    metrics=Metrics(
        main="recall@10/average",
        recalls=(10, 50),
        by_category=True,
        averaged=("recall@10/average", "recall@50/average"),
    ),
    columns=("recall@10/average", "recall@50/average"),
    terminal_columns={"recall@10/average": "R@10", "recall@50/average": "R@50"},
    predictions=PredictionForm(_lists),
    paper="fashioniq",
    options={"join": "both"},  # each feature then takes one order of the captions or both
)
