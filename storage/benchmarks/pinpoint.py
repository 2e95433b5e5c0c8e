"""PinPoint (Mahadev et al., CVPR 2026): right and wrong answers, paraphrases, several references.

The paper's files were not seen, so they are not guessed: its content is read in a form of
cirflow's own, ``cirflow_pinpoint.json`` next to ``images/``:

    {"gallery": ["a.jpg", ...],
     "queries": [{"id": "0", "references": ["b.jpg"], "texts": ["...", ...],
                  "positives": ["a.jpg"], "negatives": ["c.jpg"]}, ...]}

`texts` are a query's paraphrases; one of them is asked at a time. The present methods read one
reference image, the first; mAP@10 is given for queries of one and of more references apart.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from storage.benchmarks.errors import AnnotationError
from storage.benchmarks.facts import BenchmarkFacts, Metrics, Split
from storage.benchmarks.parsing import (
    choose,
    listing,
    read_json,
    require_field,
    require_names,
    require_records,
    require_unique,
)
from storage.benchmarks.predictions import PredictionForm, lists_by_category
from storage.benchmarks.records import Benchmark, Query
from storage.words import agreed

SPLITS = (Split(name="test"),)
FILE: Final = "cirflow_pinpoint.json"
ONE, MORE = "one_reference", "more_references"
PARAPHRASES: Final = 6


def load_pinpoint(
    root: Path, split: str, *, exclude_reference: bool = False, paraphrase: int = 0
) -> Benchmark:
    """The queries of PinPoint in cirflow's own form; images are looked for later.

    Args:
        root: Folder of ``cirflow_pinpoint.json`` and ``images``.
        split: ``test``, the only one.
        exclude_reference: Take the (first) reference out of its query's ranking. No rule was seen.
        paraphrase: Which of each query's texts is asked, from 0.

    Raises:
        AnnotationError: for unknown values, an absent file or broken records.
    """
    choose("split", split, [each.name for each in SPLITS])
    choose("exclude_reference", exclude_reference, (True, False))
    choose("paraphrase", paraphrase, range(PARAPHRASES))
    path = root / FILE
    if not path.is_file():
        raise AnnotationError(
            f"{path}: no such file. PinPoint's own files are not read: their form was not known. "
            "Write its queries as docs/benchmarks.md says (PinPoint)."
        )
    content = read_json(path)
    gallery = require_names(require_field(content, "gallery", list, str(path)), f"{path}, gallery")
    records = require_records(require_field(content, "queries", list, str(path)), path)
    known = frozenset(gallery)
    queries = tuple(
        _read_query(record, known, paraphrase, f"{path}, query {row}")
        for row, record in enumerate(records)
    )
    require_unique(tuple(query.query_id for query in queries), str(path))
    names = dict.fromkeys((*gallery, *(query.reference for query in queries)))
    for name in names:
        if Path(name).name != name:
            raise AnnotationError(f"{path}: {name!r} must be the name of a file in images/.")
    several = sum(bool(query.references) for query in queries)
    return Benchmark(
        name="pinpoint",
        split=split,
        queries=queries,
        galleries={"": gallery},
        image_candidates={name: (str(root / "images" / name),) for name in names},
        protocol={
            "split": split,
            "gallery": "all images that the file names as such",
            "exclude_reference": exclude_reference,
            "text": f"paraphrase {paraphrase}",
            "references": f"the first; {several} of {len(queries)} queries have several",
            "source": f"{FILE}, cirflow's own form",
        },
    )


def _read_query(record: Any, gallery: frozenset[str], paraphrase: int, where: str) -> Query:
    references, positives, negatives = (
        require_names(require_field(record, field, list, where), f"{where}, {field}")
        for field in ("references", "positives", "negatives")
    )
    texts = require_field(record, "texts", list, where)
    if not references or not positives:
        raise AnnotationError(f"{where}: references and positives must not be empty.")
    if outside := [name for name in (*positives, *negatives) if name not in gallery]:
        images = agreed(len(outside), "is not an image", "are not images")
        raise AnnotationError(f"{where}: {listing(outside)} {images} of the gallery.")
    if both := sorted({*positives} & {*negatives}):
        answers = agreed(
            len(both), "is both a right and a wrong answer", "are both right and wrong answers"
        )
        raise AnnotationError(f"{where}: {listing(both)} {answers}.")
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise AnnotationError(f"{where}: each of its texts must be a text that is not empty.")
    if len(texts) <= paraphrase:
        raise AnnotationError(
            f"{where}: it has {len(texts)} {agreed(len(texts), 'text')}; paraphrase={paraphrase} "
            f"asks for text {paraphrase + 1}. Ask for an earlier one."
        )
    return Query(
        query_id=require_field(record, "id", str, where),
        reference=references[0],
        text=texts[paraphrase],
        targets=positives,
        captions=(texts[paraphrase],),
        aspects=(MORE if len(references) > 1 else ONE,),
        references=references if len(references) > 1 else (),
        negatives=negatives,
    )


BENCHMARK = BenchmarkFacts(
    name="pinpoint",
    title="PinPoint",
    load=load_pinpoint,
    splits=SPLITS,
    metrics=Metrics(main="map@10", average_precisions=(10,), aspect_precision=10, negatives=10),
    columns=("map@10", "neg@10", "any_neg@10", "neg_before_pos"),
    terminal_columns={"map@10": "mAP@10", "neg@10": "neg@10"},
    predictions=PredictionForm(lists_by_category),
    family="circo",
)
