"""Texts that others made: files joined to a benchmark and stored, and stages that read them.

An import has a key of its own, made of the files' hashes and of what they were joined to. The
engine `imported` of captioner and text generator names that key; a stage then copies its rows from
the import. A query or image without a text is a failed row, and nothing is ever generated.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from models.generators.rewriting import RewriteInput
from models.protocols import CaptionReply, CaptionSampling, TextReply
from storage.benchmarks.records import Benchmark
from storage.exchange.sources import ExchangeError, SourceFile, open_sources
from storage.exchange.text_forms import read_texts
from storage.exchange.texts import FIELDS, LISTS, QueryTexts, Texts
from storage.locations.location import Location
from storage.tables.finding import find_table
from storage.tables.keys import content_key, sha256_hex
from storage.tables.table import Table, load_table, open_table
from tasks.query_sets import BenchmarkRef, QueryItem

QUERIES: Final = "imported_queries"
IMAGES: Final = "imported_images"
PRODUCER: Final = "cirflow/imported_texts/1"
ABSENT: Final = "not_imported"
"""Status of a row whose text the import does not hold."""


@dataclass(frozen=True)
class TextImport:
    """What was imported.

    Attributes:
        key: Names the import in `captioner.texts` and `generator.texts`.
        form: Forms of the files.
        source: The files with the starts of their hashes, and their licence.
        queries: Queries joined by their ids.
        images: Images joined by their names.
        captions: N, captions of a query or an image; 0: none.
        texts: Field -> number of queries that have it.
        failures: Field -> number of queries where the file says that there is no text.
        alike: Queries that equal an earlier one in image and text and have other texts; a ranking
            reads the earlier one's.
        new_rows: Rows that were not stored before.
    """

    key: str
    form: str
    source: str
    queries: int
    images: int
    captions: int
    texts: Mapping[str, int]
    failures: Mapping[str, int]
    alike: int
    new_rows: int

    def as_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def import_texts(
    root: str,
    ref: BenchmarkRef,
    paths: Sequence[str | Path],
    chosen: Mapping[str, str] | None = None,
    licence: str = "",
) -> TextImport:
    """Check some files against a benchmark, join them by id, and store what they hold.

    Args:
        root: Root of the tables.
        ref: The benchmark, with its images.
        paths: Files that are about it; see `storage.exchange.text_forms`.
        chosen: Our field -> the file's name of it, where a file has several.
        licence: Words on what the files may be used for.

    Raises:
        BenchmarkError, ExchangeError: Naming the file and the record that does not fit.
    """
    benchmark = ref.load()
    sources = open_sources(paths)
    texts = read_texts(sources, benchmark, chosen or {})
    names = {*texts.images, *(q.reference for q in benchmark.queries if texts.queries)}
    ids = {name: _image_id(benchmark, name) for name in sorted(names)}
    items = {
        query.query_id: QueryItem.of(ids[query.reference], query.texts).key
        for query in benchmark.queries
        if query.query_id in texts.queries
    }
    images = _by_content(texts, ids)
    spec = {
        "producer": PRODUCER,
        "imported": sorted(source.sha256 for source in sources),
        "form": texts.form,
        "names": dict(texts.names),
        "benchmark": benchmark.name,
        "split": benchmark.split,
        "rows": {QUERIES: len(items), IMAGES: len(images)},
        "joined": content_key({"queries": items, "images": {n: ids[n] for n in texts.images}}),
    }
    source = _source(sources, licence)
    location = Location(root)
    tables = [open_table(location, name, spec) for name in (QUERIES, IMAGES)]
    new = _publish_queries(tables[0], benchmark, texts, items, source)
    new += _publish_images(tables[1], images, source)
    failed = Counter(name for own in texts.queries.values() for name in own.failures)
    return TextImport(
        key=tables[0].spec_key,
        form=texts.form,
        source=source,
        queries=len(texts.queries),
        images=len(texts.images),
        captions=_number(texts),
        texts={f: sum(bool(getattr(q, f)) for q in texts.queries.values()) for f in FIELDS},
        failures={name: failed[name] for name in FIELDS if failed[name]},
        alike=_alike(texts, items),
        new_rows=new,
    )


def imported_spec(root: str, key: str) -> Mapping[str, Any]:
    """The spec of an import.

    Raises:
        ExchangeError: There is no such import (those that there are are listed), or it was cut off.
    """
    location = Location(root)
    try:
        tables = [load_table(location, name, key) for name in (QUERIES, IMAGES)]
        spec = tables[0].spec
        if any(spec["rows"][table.name] and not table.parts() for table in tables):
            raise ExchangeError(f"the import {key} was cut off: import its files again")
        return spec
    except ExchangeError:
        raise
    except (FileNotFoundError, ValueError):
        known = sorted({path.split("/")[1] for path in location.list(QUERIES)})
        raise ExchangeError(
            f"there is no import {key!r} in {root}; there are {', '.join(known) or 'none'}. "
            "`cirflow import texts` makes one and prints its key"
        ) from None


def imported_texts(root: str, key: str) -> Texts:
    """The texts of an import, as they were read from its files.

    Raises:
        ExchangeError: There is no such import.
    """
    spec, location = imported_spec(root, key), Location(root)
    rows = load_table(location, QUERIES, key).read().iter_rows(named=True)
    images = load_table(location, IMAGES, key).read(["image", "captions"])
    queries = {row["query_id"]: _texts_of(row) for row in rows}
    return Texts(
        form=spec["form"],
        names=spec["names"],
        queries=dict(sorted(queries.items(), key=lambda each: _order(each[0]))),
        images={name: tuple(own) for _, name, own in images.iter_rows()},
    )


def imported_source(root: str, key: str) -> str:
    """The files that an import came from, in words; empty for one that is not there."""
    for name in (QUERIES, IMAGES):
        try:
            table = find_table(Location(root), name, key)
        except ValueError:
            return ""
        if table is None:
            return ""
        if len(rows := table.read(["source"])):
            return str(rows["source"][0])
    return ""


# --------------------------------------------------------------------------- for stages


def imported_sampling(sampling: CaptionSampling) -> dict[str, Any]:
    """What a table of imported captions depends on, of how captions are drawn."""
    single = is_single(sampling)
    return {"n": sampling.n, "mode": "imported single" if single else "imported"}


def captions_imported(
    root: str, key: str, members: Sequence[str], sampling: CaptionSampling, of_queries: bool
) -> dict[str, CaptionReply]:
    """The first N captions, or the single one, of queries or of images.

    Args:
        root: Root of the tables.
        key: Of the import.
        members: Keys of queries, or ids of images.
        sampling: How many captions.
        of_queries: Whether the members are queries.

    Raises:
        ExchangeError: There is no such import.
    """
    if not of_queries:
        images = _images(root, key)
        return {m: _first(m, images.get(m, ()), sampling.n, "image") for m in members}
    queries, replies = _queries(root, key), {}
    for member in members:
        own = queries.get(member)
        if own is None:
            replies[member] = _no_caption(member, "the import holds no such query")
        elif not is_single(sampling):
            replies[member] = _first(member, own.captions, sampling.n, "query")
        elif own.single_caption:
            replies[member] = CaptionReply(member, (own.single_caption,))
        else:
            why = own.failures.get("single_caption", "the import holds no single caption")
            remedy = "; single_caption=first takes the first of several" if own.captions else ""
            replies[member] = _no_caption(member, why + remedy)
    return replies


def place_of(item: QueryItem, what: str, number: int, single: bool) -> str:
    """Where the answer to a query's request stands in an import: `KEY/field/number`.

    Args:
        item: The query.
        what: objects, or the captions that an edit is asked about.
        number: Of the request among the query's.
        single: Whether it is about the caption of single-caption methods.
    """
    if what in ("objects", "joined"):
        name = "objects" if what == "objects" else "joined_edit"
    else:
        name = "single_edit" if single else "edits"
    return f"{item.key}/{name}/{number}"


def answers_imported(root: str, key: str, inputs: Sequence[RewriteInput]) -> dict[str, TextReply]:
    """The imported texts at the places of some requests, by request key.

    Raises:
        ExchangeError: There is no such import.
    """
    queries, replies = _queries(root, key), {}
    for request in inputs:
        query_key, name, number = request.place.split("/")
        text, why = _answer(queries.get(query_key), name, int(number), request.content)
        status = "ok" if text else ABSENT
        replies[request.key] = TextReply(request.key, text, status, why, attempts=0)
    return replies


def _answer(own: QueryTexts | None, name: str, number: int, caption: str) -> tuple[str, str]:
    """The text at a place, or why there is none."""
    if own is None:
        return "", "the import holds no such query"
    value = getattr(own, name)
    several = value if name in LISTS else ((value,) if value else ())
    if number >= len(several):
        return "", own.failures.get(name, f"the import holds no such text ({name} {number})")
    before = {"edits": own.captions, "single_edit": (own.single_caption,)}.get(name, ())
    if any(before) and before[number] != caption:
        return "", "the imported edit was written from another caption; import captions as well"
    if not several[number].strip():
        return "", f"the imported text is empty ({name} {number})"
    return several[number], ""


def is_single(sampling: CaptionSampling) -> bool:
    """Whether it draws the one caption of single-caption methods."""
    return sampling.mode in ("greedy", "beam")


def captions_of_an_image(root: str, key: str) -> int:
    """The smallest number of captions that an import holds of a gallery's image; 0: none.

    Raises:
        ExchangeError: There is no such import.
    """
    return min(map(len, _images(root, key).values()), default=0)


def _first(member: str, captions: Sequence[str], n: int, what: str) -> CaptionReply:
    if not captions:
        return _no_caption(member, f"the import holds no captions of this {what}")
    if len(captions) < n:
        setting = "captions_per_image" if what == "query" else "target_captions"
        return _no_caption(
            member,
            f"the import holds {len(captions)} captions of this {what}, {n} are asked for: set "
            f"cvsi.{setting}={len(captions)}",
        )
    return CaptionReply(member, tuple(captions[:n]))


def _no_caption(member: str, why: str) -> CaptionReply:
    return CaptionReply(member, (), ABSENT, why)


@functools.lru_cache(maxsize=4)
def _queries(root: str, key: str) -> Mapping[str, QueryTexts]:
    """Query key -> its texts; of equal queries those of the first."""
    imported_spec(root, key)
    rows = load_table(Location(root), QUERIES, key).read().iter_rows(named=True)
    found: dict[str, QueryTexts] = {}
    for row in sorted(rows, key=lambda row: _order(row["query_id"])):
        found.setdefault(row["query_key"], _texts_of(row))
    return found


@functools.lru_cache(maxsize=4)
def _images(root: str, key: str) -> Mapping[str, tuple[str, ...]]:
    imported_spec(root, key)
    rows = load_table(Location(root), IMAGES, key).read(["captions"])
    return {image_id: tuple(captions) for image_id, captions in rows.iter_rows()}


# --------------------------------------------------------------------------- rows


def _image_id(benchmark: Benchmark, name: str) -> str:
    if name not in benchmark.image_paths:
        raise ExchangeError(f"image {name!r} is missing on disk; texts are joined to its bytes")
    return sha256_hex(Path(benchmark.image_paths[name]).read_bytes())


def _by_content(texts: Texts, ids: Mapping[str, str]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Image id -> name and captions."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for name, captions in texts.images.items():
        found.setdefault(ids[name], (name, captions))
    return found


def _number(texts: Texts) -> int:
    """The smallest number of captions that there are."""
    own = [*(query.captions for query in texts.queries.values()), *texts.images.values()]
    return min((len(captions) for captions in own if captions), default=0)


def _alike(texts: Texts, items: Mapping[str, str]) -> int:
    first: dict[str, list[Any]] = {}
    return sum(
        first.setdefault(item, _values(texts.queries[query_id])) != _values(texts.queries[query_id])
        for query_id, item in items.items()
    )


def _values(own: QueryTexts) -> list[Any]:
    return [getattr(own, name) for name in FIELDS]


def _source(sources: Sequence[SourceFile], licence: str) -> str:
    files = "; ".join(source.title for source in sources)
    return f"{files}; licence: {licence}" if licence else files


def _publish_queries(
    table: Table, benchmark: Benchmark, texts: Texts, items: Mapping[str, str], source: str
) -> int:
    known = {query.query_id: query for query in benchmark.queries}
    new = 0
    for shard in table.plan(sorted(texts.queries), max(1, len(texts.queries))).shards:
        own = [texts.queries[member] for member in shard.members]
        columns = {name: [_plain(getattr(each, name)) for each in own] for name in FIELDS}
        rows = table.rows(
            query_id=list(shard.members),
            query_key=[items[member] for member in shard.members],
            reference=[known[member].reference for member in shard.members],
            text=[known[member].text for member in shard.members],
            **columns,
            failures=[_json(each.failures) for each in own],
            rest=[_json(each.rest) for each in own],
            source=[source] * len(own),
        )
        new += table.publish(shard, rows).rows
    return new


def _publish_images(
    table: Table, images: Mapping[str, tuple[str, tuple[str, ...]]], source: str
) -> int:
    new = 0
    for shard in table.plan(sorted(images), max(1, len(images))).shards:
        rows = table.rows(
            image_id=list(shard.members),
            image=[images[member][0] for member in shard.members],
            captions=[list(images[member][1]) for member in shard.members],
            source=[source] * len(shard.members),
        )
        new += table.publish(shard, rows).rows
    return new


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value))  # escaped, so that no character is changed


def _texts_of(row: Mapping[str, Any]) -> QueryTexts:
    values: dict[str, Any] = {
        name: tuple(row[name]) if name in LISTS else row[name] for name in FIELDS
    }
    return QueryTexts(
        query_id=row["query_id"],
        **values,
        failures=json.loads(row["failures"]),
        rest=json.loads(row["rest"]),
    )


def _order(query_id: str) -> tuple[str, int, str]:
    """Ids in the order of the benchmark: category, then number."""
    category, _, number = query_id.rpartition("/")
    return category, int(number) if number.isdigit() else 0, number
