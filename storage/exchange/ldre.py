"""LDRE's files: a benchmark's own annotation records with captions and edits added to each.

CIRCO ``annotations/test.json``, CIRR ``cap.rc2.{split}.json`` and FashionIQ
``cap.{category}.{split}.json`` with ``multi_caption_opt`` (N captions), ``multi_gpt-3.5_opt`` (the
edit of each), and for CIRCO one caption and its edit (``blip2_caption``, ``gpt-3.5-turbo``). The
captioner is the ending (opt, t5), the language model stands before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from storage.benchmarks.fashioniq import clean_captions
from storage.benchmarks.parsing import listing, read_json, shorten
from storage.benchmarks.records import Benchmark, Query
from storage.exchange.sources import ExchangeError
from storage.exchange.texts import QueryTexts, Texts, require_agreement, text_of, texts_of

FORM: Final = "ldre"
MAPPED: Final = ("captions", "edits", "single_caption", "single_edit")
NAMES: Final[Mapping[str, str]] = {
    "captions": "multi_caption_opt",
    "edits": "multi_gpt-3.5_opt",
    "single_caption": "blip2_caption",
    "single_edit": "gpt-3.5-turbo",
}
"""Our field -> LDRE's name of it, as its CIRCO file has it."""


class _Keys(NamedTuple):
    """Fields of a benchmark's annotation records; FashionIQ's records are known by position."""

    id: str
    reference: str
    text: str
    files: str


_KEYS: Final[Mapping[str, _Keys]] = {
    "circo": _Keys("id", "reference_img_id", "relative_caption", "annotations/{split}.json"),
    "cirr": _Keys("pairid", "reference", "caption", "captions/cap.rc2.{split}.json"),
    "fashioniq": _Keys("", "candidate", "captions", "captions/cap.{category}.{split}.json"),
}


def read_ldre(
    records: Sequence[Any], benchmark: Benchmark, chosen: Mapping[str, str], path: Path
) -> Texts:
    """The texts of one file.

    Args:
        records: The parsed file.
        benchmark: The benchmark that it is about.
        chosen: Our field -> the file's name of it, where the file has several models' texts.
        path: The file, for messages; FashionIQ's names its category.

    Raises:
        ExchangeError: Naming the record that does not fit.
    """
    keys = _keys(benchmark)
    names = _names(records, chosen, path)
    known = {query.query_id: query for query in benchmark.queries}
    category = "" if keys.id else _category(records, benchmark, path)
    found: dict[str, QueryTexts] = {}
    for row, record in enumerate(records):
        where = f"{path}, record {row}"
        query_id = _query_id(record, keys, category, row, benchmark, where)
        if query_id in found:
            raise ExchangeError(f"{where}: query {query_id!r} occurs twice; keep one record")
        if query_id not in known:
            raise ExchangeError(
                f"{where}: {benchmark.name} {benchmark.split} has no query {query_id!r}. Is the "
                "file of another split?"
            )
        require_agreement(known[query_id], record[keys.reference], _said(record[keys.text]), where)
        found[query_id] = _texts(query_id, record, names, where)
    return Texts(form=FORM, queries=found, names=names)


def write_ldre(
    texts: Texts, benchmark: Benchmark | None, root: Path | None, names: Mapping[str, str]
) -> dict[str, list[dict[str, Any]]]:
    """File name -> records, one file for each category.

    Args:
        texts: The texts; those imported in this form carry the rest of their records.
        benchmark: The benchmark, for texts that do not.
        root: Its folder.
        names: Our field -> the name to write it under; LDRE's where it is not named.

    Raises:
        ExchangeError: The benchmark's records are needed, and it is not given.
    """
    originals: dict[str, Mapping[str, Any]] = {}
    if not all(own.rest for own in texts.queries.values()):
        if benchmark is None or root is None:
            raise ExchangeError("LDRE's form holds the annotation records: give the benchmark")
        originals = _originals(benchmark, root)
    files: dict[str, list[dict[str, Any]]] = {}
    for query_id, own in texts.queries.items():
        category = query_id.rpartition("/")[0]
        record = dict(own.rest or originals[query_id])
        for name in MAPPED:
            value = getattr(own, name)
            if value or name in own.failures:
                written = list(value) if name in ("captions", "edits") else value
                record[{**NAMES, **texts.names, **names}[name]] = written
        files.setdefault(category, []).append(record)
    return files


def _keys(benchmark: Benchmark) -> _Keys:
    if benchmark.name not in _KEYS:
        raise ExchangeError(
            f"LDRE's form is known for {', '.join(_KEYS)}, not for {benchmark.name}: write JSONL"
        )
    return _KEYS[benchmark.name]


def _query_id(
    record: Any, keys: _Keys, category: str, row: int, benchmark: Benchmark, where: str
) -> str:
    for name in (keys.id or keys.reference, keys.reference, keys.text):
        if not isinstance(record, dict) or name not in record:
            shown = listing(sorted(record)) if isinstance(record, dict) else shorten(record)
            raise ExchangeError(
                f"{where}: the field {name!r} of {benchmark.name} is absent; it has {shown}. Is the"
                " file of another benchmark?"
            )
    return str(record[keys.id]) if keys.id else f"{category}/{row}"


def _category(records: Sequence[Any], benchmark: Benchmark, path: Path) -> str:
    """The category that a file's name holds, or else the one that its first record is of."""
    named = [part for part in path.name.split(".") if part in benchmark.categories]
    if named:
        return named[0]
    fits = [each for each in benchmark.categories if _is_first(records[0], benchmark, each)]
    if len(fits) != 1:
        raise ExchangeError(
            f"{path}, record 0: it is the first query of no category of {benchmark.name} "
            f"{benchmark.split} ({', '.join(benchmark.categories)}). Is the file of another "
            "benchmark or split? Its published name, cap.CATEGORY.SPLIT.json, says which it is of"
        )
    return fits[0]


def _is_first(record: Any, benchmark: Benchmark, category: str) -> bool:
    queries: Sequence[Query] = benchmark.queries_of(category)
    return bool(
        queries and isinstance(record, dict) and record.get("candidate") == queries[0].reference
    )


def _said(value: Any) -> tuple[str, ...]:
    return clean_captions(value) if isinstance(value, list) else (str(value),)


def _names(records: Sequence[Any], chosen: Mapping[str, str], path: Path) -> dict[str, str]:
    """Our field -> the file's name of it."""
    have = {key for record in records if isinstance(record, dict) for key in record}
    for name, key in chosen.items():
        if name not in MAPPED or key not in have:
            raise ExchangeError(
                f"{path}: no field {key!r} for {name}; fields are {listing(sorted(have), 20)}, and "
                f"{', '.join(MAPPED)} can be named"
            )
    names = dict(chosen)
    captions = sorted(key for key in have if key.startswith("multi_caption_"))
    names.setdefault("captions", _one(captions, NAMES["captions"], "captions", path))
    captioner = names["captions"].removeprefix("multi_caption_")
    others = have - set(captions)
    edits = sorted(k for k in others if k.startswith("multi_") and k.endswith(f"_{captioner}"))
    names.setdefault("edits", _one(edits, NAMES["edits"], "edits", path))
    ending = "" if captioner == "opt" else f"_{captioner}"
    model = names["edits"].removeprefix("multi_").removesuffix(f"_{captioner}")
    single = {"single_caption": f"blip2_caption{ending}", "single_edit": f"{model}-turbo{ending}"}
    for name, key in single.items():
        if key in have:
            names.setdefault(name, key)
    return names


def _one(found: Sequence[str], usual: str, what: str, path: Path) -> str:
    if usual in found:
        return usual
    if len(found) == 1:
        return found[0]
    raise ExchangeError(
        f"{path}: {len(found)} fields could be the {what} ({listing(found)}); choose one with "
        f"--field {what}=NAME"
    )


def _texts(
    query_id: str, record: Mapping[str, Any], names: Mapping[str, str], where: str
) -> QueryTexts:
    values: dict[str, Any] = {}
    failures: dict[str, str] = {}
    for name, key in names.items():
        if key not in record:
            failures[name] = f"the record has no {key}"
            continue
        read = texts_of if name in ("captions", "edits") else text_of
        values[name] = read(record[key], f"{where}, {key}")
        if not values[name]:
            failures[name] = f"{key} is empty"
    rest = {key: value for key, value in record.items() if key not in names.values()}
    return QueryTexts(query_id=query_id, **values, failures=failures, rest=rest)


def _originals(benchmark: Benchmark, root: Path) -> dict[str, Mapping[str, Any]]:
    """Query id -> the benchmark's own record."""
    keys = _keys(benchmark)
    found: dict[str, Mapping[str, Any]] = {}
    for category in benchmark.categories:
        name = keys.files.format(split=benchmark.split, category=category)
        paths = [place for place in (root / name, *root.glob(f"*/{name}")) if place.is_file()]
        if not paths:
            raise ExchangeError(f"{root / name}: the benchmark's annotation file is not there")
        for row, record in enumerate(read_json(paths[0])):
            found[str(record[keys.id]) if keys.id else f"{category}/{row}"] = record
    return found
