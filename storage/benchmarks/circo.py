"""CIRCO (Baldrati et al., ICCV 2023): COCO 2017 unlabeled, several right answers per query.

Layout: ``annotations/{split}.json``, ``COCO2017_unlabeled/annotations/
image_info_unlabeled2017.json`` and ``COCO2017_unlabeled/unlabeled2017/*.jpg``. Image names
are the COCO ids as decimal strings. Predictions are ids (``{"0": ids, ...}``), so they can be
scored without the listing; encoding the gallery needs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.benchmarks.errors import AnnotationError, SubmissionError
from storage.benchmarks.facts import BenchmarkFacts, Lists, Metrics, Split
from storage.benchmarks.parsing import (
    choose,
    find_root,
    read_json,
    require_field,
    require_names,
    require_records,
    require_unique,
)
from storage.benchmarks.predictions import (
    RANKING_DEPTH,
    Kind,
    PredictionForm,
    RawLists,
    coco_id,
    in_query_order,
)
from storage.benchmarks.records import Benchmark, Query
from storage.benchmarks.submissions import SubmissionFile, named_lists, validated_file

SPLITS = (Split(name="val"), Split(name="test", targets=False))
COCO = Path("COCO2017_unlabeled")
LISTING = COCO / "annotations" / "image_info_unlabeled2017.json"


def load_circo(
    root: Path,
    split: str,
    *,
    exclude_reference: bool = False,
    use_shared_concept: bool = False,
) -> Benchmark:
    """Annotations of one CIRCO split; images are looked for later.

    Args:
        root: Folder that holds ``annotations`` (or that folder itself, or its grandparent).
        split: ``val`` or ``test`` (targets hidden).
        exclude_reference: Take the reference out of the ranking (the protocol keeps it).
        use_shared_concept: Write "{shared_concept} that {relative_caption}" as the text; the
            concept was shown to annotators only, so the protocol leaves it out.

    Raises:
        AnnotationError: for unknown values, absent files or broken records.
    """
    choose("split", split, [each.name for each in SPLITS])
    choose("exclude_reference", exclude_reference, (True, False))
    choose("use_shared_concept", use_shared_concept, (True, False))
    root = find_root(root, ("circo", "CIRCO", ".."), Path("annotations") / f"{split}.json")
    path = root / "annotations" / f"{split}.json"
    queries = tuple(
        _read_query(record, use_shared_concept, f"{path}, record {row}")
        for row, record in enumerate(require_records(read_json(path), path))
    )
    # The server wants the keys 0..Q-1, so the ids must be exactly these.
    if [query.query_id for query in queries] != [str(row) for row in range(len(queries))]:
        raise AnnotationError(f"{path}: ids must be 0..{len(queries) - 1} in order.")
    files = _read_listing(root / LISTING)
    return Benchmark(
        name="circo",
        split=split,
        queries=queries,
        galleries={"": tuple(files)},
        image_candidates={
            name: (str(root / COCO / "unlabeled2017" / file),) for name, file in files.items()
        },
        protocol={
            "split": split,
            "gallery": "all COCO 2017 unlabeled images",
            "gallery_listing": LISTING.name if files else f"absent: {LISTING} was not found",
            "exclude_reference": exclude_reference,
            "use_shared_concept": use_shared_concept,
            "text": ("shared_concept that " if use_shared_concept else "") + "relative_caption",
        },
    )


def _read_query(record: Any, use_shared_concept: bool, where: str) -> Query:
    caption = require_field(record, "relative_caption", str, where)
    concept = require_field(record, "shared_concept", str, where)
    reference = str(require_field(record, "reference_img_id", int, where))
    targets = _read_targets(record, where) if "gt_img_ids" in record else ()
    if reference in targets:
        raise AnnotationError(f"{where}: the reference {reference} is among its own targets.")
    aspects = record.get("semantic_aspects", [])
    return Query(
        query_id=str(require_field(record, "id", int, where)),
        reference=reference,
        text=f"{concept} that {caption}" if use_shared_concept else caption,
        targets=targets,
        captions=(caption,),
        aspects=require_names(aspects, where),
    )


def _read_targets(record: Any, where: str) -> tuple[str, ...]:
    """All right answers, the annotated target first (recall counts that one only)."""
    target = str(require_field(record, "target_img_id", int, where))
    found = tuple(str(image) for image in require_field(record, "gt_img_ids", list, where))
    require_unique(found, where)
    if target not in found or not all(image.isdigit() for image in found):
        raise AnnotationError(f"{where}: gt_img_ids must be ids and hold the target {target}.")
    return (target, *(image for image in found if image != target))


def _read_listing(path: Path) -> dict[str, str]:
    """Image name -> file name in the listing's order; empty without a listing."""
    if not path.exists():
        return {}
    listing = read_json(path)
    images = require_records(require_field(listing, "images", list, str(path)), path)
    files: dict[str, str] = {}
    for row, image in enumerate(images):
        where = f"{path}, image {row}"
        name = str(require_field(image, "id", int, where))
        file = require_field(image, "file_name", str, where)
        if Path(file).name != file:
            raise AnnotationError(f"{where}: file_name {file!r} must be a bare file name.")
        if name in files:
            raise AnnotationError(f"{where}: id {name} occurs twice.")
        files[name] = file
    return files


def _lists(benchmark: Benchmark, data: Mapping[str, Any]) -> tuple[Kind, RawLists]:
    wanted = [query.query_id for query in benchmark.queries]
    return "ranking", {"": in_query_order(data, wanted, "query id")}


PREDICTIONS = PredictionForm(_lists, coco_id)


def circo_submission(
    benchmark: Benchmark, rankings: Lists, group_rankings: Lists
) -> tuple[SubmissionFile, ...]:
    """The CIRCO file: 50 integer COCO ids per query, keys 0..Q-1.

    Args:
        benchmark: A split with its gallery listing.
        rankings: (Q, >= 50) gallery indices, best first.
        group_rankings: Not read; there are no groups.

    Raises:
        SubmissionError: The server would reject or misread the file.
    """
    names = named_lists(benchmark, rankings[""], RANKING_DEPTH)
    try:
        content = {key: [int(name) for name in row] for key, row in names.items()}
    except ValueError as problem:
        raise SubmissionError(f"CIRCO galleries are named by COCO id: {problem}.") from None
    name = f"{benchmark.name}_{benchmark.split}.json"
    return (validated_file(benchmark, PREDICTIONS, name, content),)


METRICS = Metrics(
    main="map@10",
    average_precisions=(5, 10, 25, 50),
    recalls=(5, 10, 25, 50),
    aspect_precision=10,
)
BENCHMARK = BenchmarkFacts(
    name="circo",
    title="CIRCO",
    load=load_circo,
    splits=SPLITS,
    metrics=METRICS,
    columns=("map@5", "map@10", "map@25", "map@50"),
    terminal_columns={"map@5": "mAP@5", "map@10": "mAP@10", "map@50": "mAP@50"},
    predictions=PREDICTIONS,
    submission=circo_submission,
    paper="circo",
)
