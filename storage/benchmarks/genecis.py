"""GeneCIS (Vaze et al., CVPR 2023): each query chooses among a handful of images.

Layout: ``{task}.json`` for the tasks ``change_attribute``, ``focus_attribute`` (Visual Genome),
``change_object`` and ``focus_object`` (COCO val2017); each task is a split. A record has
``reference``, ``target``, ``gallery`` (the wrong images) and ``condition``. Images of COCO are
whole: ``val2017/*.jpg`` by ``val_image_id``. Those of Visual Genome are cut out around
``instance_bbox`` first, by ``python -m storage.benchmarks.genecis_crops``, into ``crops/``. R@1, 2,
3 among target and gallery are computed as recall_subset. Predictions: ``{query's row: names}``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from storage.benchmarks.errors import AnnotationError
from storage.benchmarks.facts import BenchmarkFacts, Metrics, Split
from storage.benchmarks.parsing import (
    choose,
    find_root,
    read_json,
    require_field,
    require_records,
    shorten,
)
from storage.benchmarks.predictions import PredictionForm, lists_by_category
from storage.benchmarks.records import Benchmark, Query

ATTRIBUTES: Final = ("change_attribute", "focus_attribute")
OBJECTS: Final = ("change_object", "focus_object")
SPLITS = tuple(Split(name=task) for task in (*ATTRIBUTES, *OBJECTS))
FOLDERS = ("genecis", "annotations", "genecis/annotations", "genecis/genecis", "GENECIS/genecis")
CROPS: Final = "crops"
COCO_FOLDERS = ("val2017", "coco2017/val2017")


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of an image of Visual Genome: its id, and left, top, width and height in pixels."""

    image_id: str
    box: tuple[float, float, float, float]

    @property
    def name(self) -> str:
        """Its name in the gallery, and without the ending that of its file."""
        return "_".join([self.image_id, *(f"{side:g}" for side in self.box)])


def load_genecis(root: Path, split: str, *, exclude_reference: bool = False) -> Benchmark:
    """The queries of one task of GeneCIS; images are looked for later.

    As in the released evaluation, queries with another number of images than most are left out.

    Args:
        root: Folder of the tasks' files, or a folder above it.
        split: The task.
        exclude_reference: Take the reference out of its query's choice (the protocol keeps it).

    Raises:
        AnnotationError: for unknown values, absent files or broken records.
    """
    choose("split", split, [each.name for each in SPLITS])
    choose("exclude_reference", exclude_reference, (True, False))
    root = find_root(root, FOLDERS, Path(f"{split}.json"))
    path = root / f"{split}.json"
    records = require_records(read_json(path), path)
    sizes = [
        len(require_field(record, "gallery", list, f"{path}, record {row}"))
        for row, record in enumerate(records)
    ]
    usual = max(sorted(Counter(sizes)), key=Counter(sizes).__getitem__)
    kept = [row for row, size in enumerate(sizes) if size == usual]
    queries = tuple(
        _read_query(records[row], split, str(place), f"{path}, record {row}")
        for place, row in enumerate(kept)
    )
    gallery = dict.fromkeys(name for query in queries for name in query.subset)
    images = gallery | dict.fromkeys(query.reference for query in queries)
    return Benchmark(
        name="genecis",
        split=split,
        queries=queries,
        galleries={"": tuple(gallery)},
        image_candidates={name: _files(root, split, name) for name in images},
        protocol={
            "split": split,
            "gallery": f"the query's own {usual + 1} images",
            "exclude_reference": exclude_reference,
            "text": "condition",
            "left_out": f"{len(records) - len(kept)} queries with another number of images",
            "repeated_images": sum(usual + 1 - len(query.subset) for query in queries),
        },
    )


def read_crops(root: Path, split: str) -> dict[str, Crop]:
    """Name -> part of an image, of all records of a task of Visual Genome.

    Raises:
        AnnotationError: as `load_genecis`.
    """
    choose("task", split, ATTRIBUTES)
    path = find_root(root, FOLDERS, Path(f"{split}.json")) / f"{split}.json"
    crops: dict[str, Crop] = {}
    for row, record in enumerate(require_records(read_json(path), path)):
        where = f"{path}, record {row}"
        parts = [require_field(record, field, dict, where) for field in ("reference", "target")]
        for part in (*parts, *require_field(record, "gallery", list, where)):
            crop = _crop(part, where)
            crops[crop.name] = crop
    return crops


def _read_query(record: Any, task: str, query_id: str, where: str) -> Query:
    reference, target = (
        _name(require_field(record, field, dict, where), task, f"{where}, {field}")
        for field in ("reference", "target")
    )
    others = [
        _name(image, task, f"{where}, gallery {place}")
        for place, image in enumerate(record["gallery"])
    ]
    text = require_field(record, "condition", str, where)
    if not others or not text.strip():
        raise AnnotationError(f"{where}: the {'condition' if others else 'gallery'} is empty.")
    # An image that is named twice can only be ranked once.
    return Query(
        query_id=query_id,
        reference=reference,
        text=text,
        targets=(target,),
        subset=tuple(dict.fromkeys((target, *others))),
        captions=(text,),
    )


def _name(image: Any, task: str, where: str) -> str:
    if task in ATTRIBUTES:
        return _crop(image, where).name
    number: int = require_field(image, "val_image_id", int, where)
    if not 0 <= number < 10**12:
        raise AnnotationError(f"{where}: field 'val_image_id' is {number}, not an id of COCO.")
    return f"{number:012d}"


def _crop(image: Any, where: str) -> Crop:
    box = require_field(image, "instance_bbox", list, where)
    sides = [side for side in box if isinstance(side, int | float) and not isinstance(side, bool)]
    if len(box) != 4 or len(sides) != 4 or min(sides[2:]) <= 0:
        raise AnnotationError(
            f"{where}: field 'instance_bbox' is {shorten(box)}, "
            "expected [left, top, width, height]."
        )
    number = image.get("image_id")
    named = str(number) if isinstance(number, int) and not isinstance(number, bool) else number
    if not isinstance(named, str) or not named.isascii() or not named.isdigit():
        raise AnnotationError(f"{where}: field 'image_id' is {shorten(number)}, expected digits.")
    return Crop(named, (box[0], box[1], box[2], box[3]))


def _files(root: Path, task: str, name: str) -> tuple[str, ...]:
    homes = (root, root.parent)
    if task in ATTRIBUTES:
        return tuple(str(home / CROPS / f"{name}.png") for home in homes)
    return tuple(str(home / folder / f"{name}.jpg") for home in homes for folder in COCO_FOLDERS)


def _lists(benchmark: Benchmark, data: Any) -> Any:
    return lists_by_category(benchmark, data, "subset")


BENCHMARK = BenchmarkFacts(
    name="genecis",
    title="GeneCIS",
    load=load_genecis,
    splits=SPLITS,
    metrics=Metrics(main="recall_subset@1", group_recalls=(1, 2, 3)),
    columns=("recall_subset@1", "recall_subset@2", "recall_subset@3"),
    terminal_columns={f"recall_subset@{k}": f"R@{k}" for k in (1, 2, 3)},
    predictions=PredictionForm(_lists),
    family="cirr",
)
