"""Texts of a benchmark's queries and images, in whichever file they came: the common records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from storage.benchmarks.parsing import listing, shorten
from storage.benchmarks.records import Benchmark, Query
from storage.exchange.sources import ExchangeError
from storage.words import agreed

LISTS: Final = ("captions", "edits")
SINGLE: Final = ("joined_edit", "single_caption", "single_edit", "objects")
FIELDS: Final = (*LISTS, *SINGLE)
"""Texts that a query may have."""


@dataclass(frozen=True, kw_only=True)
class QueryTexts:
    """What a file says about one query; what it does not say is empty.

    Attributes:
        query_id: The benchmark's identifier.
        captions: N captions of the reference image, in the file's order.
        edits: The edit of each of these captions, in the same order.
        joined_edit: One edit of all captions joined (CVSI's released code).
        single_caption: The one caption of single-caption methods (CIReVL).
        single_edit: Its edit.
        objects: The objects most likely added (CVSI).
        failures: Field -> why the file holds no text there, where it says so.
        rest: What else the file holds of the query, so that it can be written again.
    """

    query_id: str
    captions: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()
    joined_edit: str = ""
    single_caption: str = ""
    single_edit: str = ""
    objects: str = ""
    failures: Mapping[str, str] = field(default_factory=dict)
    rest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The texts of a file, or of several.

    Attributes:
        form: Name of the file's form.
        queries: Query id -> its texts.
        images: Image name -> its captions.
        names: Our field -> the file's own name of it, where the file chooses.
    """

    form: str
    queries: Mapping[str, QueryTexts] = field(default_factory=dict)
    images: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)


def merged(found: Sequence[Texts]) -> Texts:
    """The texts of several files as one.

    Raises:
        ExchangeError: Two files say different things about one query or image.
    """
    queries: dict[str, QueryTexts] = {}
    images: dict[str, tuple[str, ...]] = {}
    for texts in found:
        for query_id, own in texts.queries.items():
            known = queries.get(query_id)
            queries[query_id] = own if known is None else _both(known, own)
        for name, captions in texts.images.items():
            if images.setdefault(name, captions) != captions:
                raise ExchangeError(f"image {name!r}: two files give it different captions")
    return Texts(
        form=" + ".join(sorted({texts.form for texts in found})),
        queries=queries,
        images=images,
        names={key: name for texts in found for key, name in texts.names.items()},
    )


def _both(first: QueryTexts, second: QueryTexts) -> QueryTexts:
    values: dict[str, Any] = {}
    for name in FIELDS:
        one, other = getattr(first, name), getattr(second, name)
        if one and other and one != other:
            raise ExchangeError(
                f"query {first.query_id!r}: two files give it different {name}: {shorten(one)} and "
                f"{shorten(other)}; import them apart, or leave one out"
            )
        values[name] = one or other
    failures = {**first.failures, **second.failures}
    values["failures"] = {name: why for name, why in failures.items() if not values[name]}
    return replace(first, **values, rest={**first.rest, **second.rest})


def require_whole(benchmark: Benchmark, texts: Texts, where: str) -> None:
    """Refuse texts of a category that leave out a query, and numbers of texts that do not fit.

    Raises:
        ExchangeError: Naming the file and the query.
    """
    split = f"{benchmark.name} {benchmark.split}"
    touched = {query.category for query in benchmark.queries if query.query_id in texts.queries}
    wanted = [query.query_id for query in benchmark.queries if query.category in touched]
    absent = [query_id for query_id in wanted if query_id not in texts.queries]
    if absent:
        raise ExchangeError(
            f"{where}: {len(absent)} of {len(wanted)} {agreed(len(wanted), 'query')} of {split} "
            f"{agreed(len(absent), 'is', 'are')} absent ({listing(absent)}); every query needs a "
            "record, failed ones with empty texts"
        )
    counts = {query_id: len(own.captions) for query_id, own in texts.queries.items()}
    _require_one_number(where, "query", counts)
    _require_one_number(where, "image", {name: len(own) for name, own in texts.images.items()})
    for query_id, own in texts.queries.items():
        if own.edits and own.captions and len(own.edits) != len(own.captions):
            edits = f"{len(own.edits)} {agreed(len(own.edits), 'edit')}"
            captions = f"{len(own.captions)} {agreed(len(own.captions), 'caption')}"
            raise ExchangeError(
                f"{where}, query {query_id!r}: {edits} of {captions}; each edit belongs to one "
                "caption"
            )


def _require_one_number(where: str, what: str, counts: Mapping[str, int]) -> None:
    numbers = sorted({count for count in counts.values() if count})
    if len(numbers) > 1:
        usual = max(numbers, key=lambda n: list(counts.values()).count(n))
        name, count = next((k, n) for k, n in counts.items() if n and n != usual)
        raise ExchangeError(
            f"{where}, {what} {name!r}: {count} {agreed(count, 'caption')}, others have {usual}; "
            "methods compare captions by their number, so that all need as many"
        )


def texts_of(value: Any, where: str) -> tuple[str, ...]:
    """A list of texts.

    Raises:
        ExchangeError: It is something else.
    """
    if not isinstance(value, list):
        raise ExchangeError(f"{where} is {shorten(value)}, expected a list of texts")
    for place, item in enumerate(value):
        if not isinstance(item, str):
            raise ExchangeError(f"{where}, entry {place} is {shorten(item)}, expected a text")
    return tuple(value)


def text_of(value: Any, where: str) -> str:
    """A text; None is an empty one.

    Raises:
        ExchangeError: It is something else.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ExchangeError(f"{where} is {shorten(value)}, expected a text")
    return value


def require_agreement(
    query: Query, reference: object, texts: Iterable[str] | None, where: str
) -> None:
    """Compare what a record says of its query with the benchmark; None is not compared.

    Raises:
        ExchangeError: Naming the record, with both values.
    """
    if reference is not None and str(reference) != query.reference:
        raise ExchangeError(
            f"{where}: the reference is {shorten(reference)}; query {query.query_id!r} has "
            f"{query.reference!r}. Is the file of another benchmark, split or version?"
        )
    known = {tuple(map(str.strip, own)) for own in (query.captions, query.texts, query.texts[:1])}
    given = None if texts is None else tuple(text.strip() for text in texts)
    if given is not None and given not in known:
        raise ExchangeError(
            f"{where}: the modification text is {shorten(' / '.join(given))}; query "
            f"{query.query_id!r} has {shorten(query.text)}. Is the file of another benchmark, split"
            " or version?"
        )
