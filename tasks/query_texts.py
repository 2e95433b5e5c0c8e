"""Texts that stand in for those of a benchmark's queries: from a file, or generated.

InstructCIR's test-domain table asks the queries of a benchmark with texts that its own writer made
from captions of reference and target. The identity of such texts is their content.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from models.settings import Settings
from models.spelling import agreed, some_of, unknown
from storage.benchmarks.records import Benchmark, Query
from storage.locations.location import Location
from storage.tables.keys import content_key

ANNOTATED: Final = "annotated"
GENERATED: Final = "generated"
PARAPHRASED: Final = "paraphrased"
FORMS: Final = (".json", ".jsonl", ".csv", ".parquet")
"""Endings of files with texts."""

QueryKey = tuple[str, str]
"""Category and id of a query."""


class QueryTexts(Settings):
    """The texts that a benchmark's queries are asked with."""

    source: Literal["annotated", "generated", "file", "paraphrased"] = "annotated"
    """The benchmark's own, written by a language model, those of a file, or its own in other
    words."""
    place: str = ""
    """The file, or the key of the table of written texts; a paraphrase's number after it."""
    content: str = ""
    """Content key of the texts by query; empty before they are known."""
    label: str = ""
    """What they are, in words; not a part of their identity."""

    @property
    def are_replaced(self) -> bool:
        """Whether they are not the benchmark's own."""
        return self.source != ANNOTATED

    @property
    def identity(self) -> dict[str, Any]:
        """Their part in the identity of a ranking; empty for the benchmark's own."""
        return {"texts": [self.source, self.content]} if self.are_replaced else {}


OWN_TEXTS: Final = QueryTexts()


@dataclasses.dataclass(frozen=True)
class FoundTexts:
    """Replaced texts.

    Attributes:
        texts: query -> text.
        without: query -> why it has none.
    """

    texts: Mapping[QueryKey, str]
    without: Mapping[QueryKey, str]

    @property
    def content(self) -> str:
        """Content key of the texts by query."""
        return content_key(sorted([*key, text] for key, text in self.texts.items()))

    def replaced(self, benchmark: Benchmark) -> Benchmark:
        """The benchmark with these texts; a query without one has an empty text."""
        queries = tuple(
            dataclasses.replace(
                query, text=self.texts.get(key_of(query), ""), captions=(), alternatives=()
            )
            for query in benchmark.queries
        )
        return dataclasses.replace(benchmark, queries=queries)


def given_texts(given: str) -> QueryTexts:
    """The texts that a person chose: annotated, generated, or a file.

    Raises:
        ValueError: it is none of these.
    """
    if given in (ANNOTATED, GENERATED):
        return QueryTexts(source=given)
    path = Path(given)
    if path.suffix not in FORMS:
        allowed = (ANNOTATED, GENERATED, f"a file ({', '.join(FORMS)})")
        raise ValueError(unknown("texts of queries", given, allowed))
    if not path.is_file():
        raise ValueError(f"there is no file {given} with texts of queries")
    return QueryTexts(source="file", place=str(path.resolve()))


def file_texts(path: str, benchmark: Benchmark) -> FoundTexts:
    """The texts of a file, one for each query of a benchmark.

    The file is a JSON object of query id -> text, or has the columns `query_id` and `text`. Where
    categories share an id, it is written `CATEGORY/ID`.

    Raises:
        ValueError: a query has no text, two or an empty one, or an id is not of the benchmark; the
            message names it.
    """
    ids = [query.query_id for query in benchmark.queries]
    keys = {f"{query.category}/{query.query_id}": key_of(query) for query in benchmark.queries}
    if len(set(ids)) == len(ids):
        keys |= {query.query_id: key_of(query) for query in benchmark.queries}
    split = f"{benchmark.name} {benchmark.split}"
    found: dict[QueryKey, str] = {}
    for own, text in _records(Path(path)):
        if own not in keys:
            raise ValueError(f"{path}: {unknown(f'query of {split}', own, ids[:3])}, ...")
        if keys[own] in found:
            raise ValueError(f"{path}: query {own} of {split} has two texts; leave one")
        if not text.strip():
            raise ValueError(f"{path}: the text of query {own} of {split} is empty")
        found[keys[own]] = text.strip()
    if lacking := [query.query_id for query in benchmark.queries if key_of(query) not in found]:
        raise ValueError(
            f"{path}: {len(lacking)} of {len(ids)} {agreed(len(ids), 'query')} of {split} "
            f"{agreed(len(lacking), 'has', 'have')} no text: {some_of(lacking)}"
        )
    return FoundTexts(found, {})


def _records(path: Path) -> list[tuple[str, str]]:
    """Query id and text of every record of a file.

    Raises:
        ValueError: the file is not of one of the forms.
    """
    import polars as pl

    try:
        if path.suffix == ".json":
            value = json.loads(path.read_text("utf-8"), object_pairs_hook=list)
            if all(isinstance(each, tuple) and isinstance(each[1], str) for each in value):
                return list(value)
            raise ValueError("it is not one JSON object of query id -> text")
        frame = {
            ".jsonl": lambda: pl.read_ndjson(path),
            ".csv": lambda: pl.read_csv(path, infer_schema=False),
            ".parquet": lambda: pl.read_parquet(path),
        }[path.suffix]()
        rows = frame.select(pl.col("query_id", "text").cast(pl.String).fill_null("")).rows()
    except (ValueError, TypeError, pl.exceptions.PolarsError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}); it should be a JSON object of query id -> text, or "
            "JSON lines, CSV or Parquet with the columns query_id and text"
        ) from error
    return [(own, text) for own, text in rows]


def written_texts(
    root: str, spec_key: str, benchmark: Benchmark, image_ids: Mapping[str, str]
) -> FoundTexts:
    """The texts that a language model wrote for reference and annotated target of each query.

    Args:
        root: Where tables are kept.
        spec_key: Key of the table of written texts.
        benchmark: The benchmark with its own texts.
        image_ids: Name of an image -> its id.
    """
    from models.triplets import triplet_id
    from storage.tables.schemas import OK
    from storage.tables.table import load_table

    table = load_table(Location(root), "triplets", spec_key)
    rows = table.read(["text", "status", "reason"]).iter_rows()
    written = {own: (text, status, reason) for own, text, status, reason in rows}
    texts: dict[QueryKey, str] = {}
    without: dict[QueryKey, str] = {}
    for query in benchmark.queries:
        key, target = key_of(query), query.targets[0] if query.targets else ""
        if query.reference not in image_ids or target not in image_ids:
            without[key] = "its reference or its target is not readable"
            continue
        pair = triplet_id(image_ids[query.reference], image_ids[target])
        text, status, reason = written.get(pair, ("", "missing", "no text was written yet"))
        if status == OK:
            texts[key] = text
        else:
            without[key] = f"{status}: {reason}"
    return FoundTexts(texts, without)


def paraphrased_texts(root: str, place: str, benchmark: Benchmark) -> FoundTexts:
    """One paraphrase of each query's own text.

    Args:
        root: Where tables are kept.
        place: Key of the table of paraphrases, and the number of the wording: ``KEY/1``.
        benchmark: The benchmark with its own texts.
    """
    from models.generators.paraphrasing import ParaphraseInput
    from storage.tables.schemas import OK
    from storage.tables.table import load_table

    spec_key, _, number = place.partition("/")
    wanted = {
        key_of(query): ParaphraseInput(int(number), query.text).key for query in benchmark.queries
    }
    table = load_table(Location(root), "paraphrases", spec_key)
    columns = [table.schema.key, "answer", "status", "reason"]
    rows = table.read(columns, sorted(set(wanted.values()))).iter_rows()
    written = {own: (answer, status, reason) for own, answer, status, reason in rows}
    found = {key: written.get(own, ("", "missing", "not yet")) for key, own in wanted.items()}
    return FoundTexts(
        {key: answer for key, (answer, status, _) in found.items() if status == OK},
        {key: f"{status}: {why}" for key, (_, status, why) in found.items() if status != OK},
    )


def key_of(query: Query) -> QueryKey:
    """Category and id."""
    return query.category, query.query_id
