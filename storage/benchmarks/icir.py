"""i-CIR (Psomas et al., NeurIPS 2025): particular objects, each with a database of its own.

Layout: ``query_files.csv`` and ``database_files.csv``, or both in ``annotations/``, with lines
``image_path,text_query,instance_id``, and the images that they name. A query is ranked in its
instance's database; right answers are the database's images of the same text. The measure is the
average precision over the whole ranking, by the trapezoid rule of the released evaluation, averaged
over all queries. Predictions: ``{instance: {query index: all names of its database}}``.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Final

from storage.benchmarks.errors import AnnotationError
from storage.benchmarks.facts import BenchmarkFacts, Metrics, Split
from storage.benchmarks.parsing import choose, find_root, shorten
from storage.benchmarks.predictions import PredictionForm, lists_by_category
from storage.benchmarks.records import Benchmark, Query
from storage.words import agreed

SPLITS = (Split(name="test"),)
FOLDERS = ("annotations", "icir", "icir/annotations", "data/icir")
QUERIES, DATABASE = Path("query_files.csv"), Path("database_files.csv")
HEADER: Final = ["image_path", "text_query", "instance_id"]

Line = tuple[str, str, str, str]
"""Image, text, instance, and where they stand."""


def load_icir(root: Path, split: str, *, exclude_reference: bool = False) -> Benchmark:
    """Annotations of i-CIR; images are looked for later.

    Args:
        root: Folder of the two lists, or a folder above it.
        split: ``test``, the only one.
        exclude_reference: Take the reference out of its query's ranking (the protocol keeps it;
            databases hold no query images).

    Raises:
        AnnotationError: for unknown values, absent files or broken lines.
    """
    choose("split", split, [each.name for each in SPLITS])
    choose("exclude_reference", exclude_reference, (True, False))
    root = find_root(root, FOLDERS, QUERIES)
    asked, offered = _read(root / QUERIES), _read(root / DATABASE)
    databases: dict[str, dict[str, None]] = defaultdict(dict)
    answers: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for image, text, instance, _ in offered:
        databases[instance][image] = None
        answers[instance, text][image] = None
    grouped: dict[str, list[Query]] = defaultdict(list)
    for row, (image, text, instance, where) in enumerate(asked):
        targets = _targets(answers, databases, (image, text, instance, where))
        query = Query(str(row), image, text, targets, category=instance, captions=(text,))
        grouped[instance].append(query)
    held = {name: tuple(databases[name]) for name in grouped}
    images = dict.fromkeys(name for own in held.values() for name in own)
    images |= dict.fromkeys(image for image, *_ in asked)
    repeated = len(offered) - sum(map(len, databases.values()))
    return Benchmark(
        name="icir",
        split=split,
        queries=tuple(query for own in grouped.values() for query in own),
        galleries=held,
        image_candidates={name: _files(root, name) for name in images},
        protocol={
            "split": split,
            "gallery": "the database of the query's instance",
            "exclude_reference": exclude_reference,
            "text": "text_query",
            "right_answers": "images of the instance's database with the query's text",
            "precision": "trapezoid rule over the whole ranking, mean over queries",
            **({"repeated_lines": f"{repeated}: such an image counts once"} if repeated else {}),
        },
    )


def _read(path: Path) -> list[Line]:
    """The lines of a list; the names of the columns may stand above them."""
    if not path.is_file():
        raise AnnotationError(
            f"{path}: no such file. Check the path, or download the file it names."
        )
    lines: list[Line] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, fields in enumerate(csv.reader(file, strict=True), start=1):
                if fields == HEADER and number == 1:
                    continue
                lines.append(_line(fields, f"{path}, line {number}"))
    except (UnicodeDecodeError, csv.Error) as problem:
        raise AnnotationError(f"{path}: not a CSV file in UTF-8 ({problem}).") from None
    if not lines:
        raise AnnotationError(f"{path}: it has no line {','.join(HEADER)}.")
    return lines


def _line(fields: list[str], where: str) -> Line:
    if len(fields) != len(HEADER):
        raise AnnotationError(
            f"{where}: {len(fields)} {agreed(len(fields), 'field')}, {len(HEADER)} are expected: "
            f"{','.join(HEADER)}."
        )
    image, text, instance = fields
    path = PurePosixPath(image)
    if not path.name or path.is_absolute() or ".." in path.parts:
        raise AnnotationError(f"{where}: image_path {shorten(image)} must lie below the data set.")
    if not instance:
        raise AnnotationError(f"{where}: instance_id is empty.")
    return image, text, instance, where


def _targets(
    answers: dict[tuple[str, str], dict[str, None]],
    databases: dict[str, dict[str, None]],
    line: Line,
) -> tuple[str, ...]:
    _, text, instance, where = line
    if instance not in databases:
        raise AnnotationError(f"{where}: {DATABASE} has no image of the instance {instance!r}.")
    if not text.strip():
        raise AnnotationError(f"{where}: text_query is empty.")
    if not (found := answers.get((instance, text))):
        raise AnnotationError(
            f"{where}: no image of the instance {instance!r} in {DATABASE} has the text {text!r}."
        )
    return tuple(found)


def _files(root: Path, name: str) -> tuple[str, ...]:
    """Where an image may be: released paths begin with the data set's own folder."""
    parts = PurePosixPath(name).parts
    homes = (root, root.parent) if root.name != "annotations" else (root.parent, root.parent.parent)
    inside = [homes[0].joinpath(*parts[1:])] if len(parts) > 1 else []
    return tuple(str(path) for path in (homes[0] / name, homes[1] / name, *inside))


BENCHMARK = BenchmarkFacts(
    name="icir",
    title="i-CIR",
    load=load_icir,
    splits=SPLITS,
    metrics=Metrics(main="map", pooled=True, whole_precision=True, average_precisions=(10,)),
    columns=("map", "map@10"),
    terminal_columns={"map": "mAP", "map@10": "mAP@10"},
    predictions=PredictionForm(lists_by_category, whole=True),
    family="circo",
)
