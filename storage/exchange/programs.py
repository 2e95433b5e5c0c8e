"""Files that the programs of CIReVL and CVSI write: lists in the order of the benchmark's queries.

- ``..._mods_{prompt}.json``: ``base_caption``, ``instruction``, ``modified_captions`` and, by CVSI,
  ``added_content``. CVSI edits all captions joined, once.
- ``..._captions.pkl``, converted to JSON: ``all_captions``, ``relative_captions``,
  ``reference_names``.
- CVSI's ``..._target_captions.pkl``, converted: ``target_captions``, in the gallery's order. Its
  ``index_names`` repeat each batch's names, and are not read.

Rows are compared with the benchmark by their texts. A failure that a program wrote as the
instruction itself, as an empty text or as the unedited captions is a failure here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from storage.benchmarks.records import Benchmark, Query
from storage.exchange.sources import ExchangeError
from storage.exchange.texts import QueryTexts, Texts, require_agreement, text_of, texts_of
from storage.words import agreed

MODS: Final = "program edits"
CAPTIONS: Final = "program captions"
TARGETS: Final = "program target captions"
_COLUMNS: Final = {
    MODS: ("modified_captions", "base_caption", "instruction"),
    CAPTIONS: ("all_captions", "relative_captions"),
    TARGETS: ("target_captions",),
}


def program_form(data: Mapping[str, Any]) -> str:
    """Which of the files it is, by its first column; empty for none."""
    return next((form for form, columns in _COLUMNS.items() if columns[0] in data), "")


def read_program(data: Mapping[str, Any], benchmark: Benchmark, path: Path) -> Texts:
    """The texts of one file.

    Raises:
        ExchangeError: Naming the record that does not fit.
    """
    form = program_form(data)
    lists = {name: _list(data, name, path) for name in _COLUMNS[form]}
    optional = ("added_content", "reference_names")
    lists |= {name: _list(data, name, path) for name in optional if name in data}
    sizes = {name: len(values) for name, values in lists.items()}
    if len(set(sizes.values())) > 1:
        raise ExchangeError(f"{path}: its lists have different lengths: {sizes}")
    if form == TARGETS:
        return _target_captions(lists["target_captions"], benchmark, path)
    texts = lists["instruction" if form == MODS else "relative_captions"]
    queries = _queries(texts, benchmark, path)
    found = {}
    for row, query in enumerate(queries):
        where = f"{path}, record {row}"
        reference = lists["reference_names"][row] if "reference_names" in lists else None
        require_agreement(query, reference, (text_of(texts[row], where),), where)
        own = {name: values[row] for name, values in lists.items()}
        found[query.query_id] = QueryTexts(
            query_id=query.query_id,
            **(_edited(own, where) if form == MODS else _captioned(own["all_captions"], where)),
        )
    return Texts(form=form, queries=found)


def _list(data: Mapping[str, Any], name: str, path: Path) -> list[Any]:
    value = data.get(name)
    if not isinstance(value, list):
        raise ExchangeError(f"{path}: it needs a list {name!r}; it has {', '.join(data)}")
    return value


def _queries(texts: Sequence[Any], benchmark: Benchmark, path: Path) -> Sequence[Query]:
    """The queries whose order the file has: of the whole benchmark, or of one category."""
    candidates = [benchmark.queries, *map(benchmark.queries_of, benchmark.categories)]
    sized = [own for own in candidates if len(own) == len(texts)]
    if not sized:
        wanted = sorted({len(own) for own in candidates})
        raise ExchangeError(
            f"{path}: {len(texts)} {agreed(len(texts), 'record')}; {benchmark.name} "
            f"{benchmark.split} has {' or '.join(map(str, wanted))} "
            f"{agreed(wanted[-1], 'query')}, and rows are known by their position"
        )
    return max(sized, key=lambda own: _agreeing(own, texts))


def _agreeing(queries: Sequence[Query], texts: Sequence[Any]) -> int:
    return sum(
        str(text).strip() == query.text.strip() for query, text in zip(queries, texts, strict=True)
    )


def _captioned(value: Any, where: str) -> dict[str, Any]:
    if isinstance(value, str):
        return {"single_caption": value}
    return {"captions": texts_of(value, f"{where}, captions")}


def _edited(own: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Captions, edit and objects of a query, with the program's ways of writing a failure."""
    found = _captioned(own["base_caption"], where)
    edit, text = own["modified_captions"], own["instruction"].strip()
    failures = {}
    if isinstance(edit, list):
        edits = texts_of(edit, f"{where}, modified_captions")
        name, edit = "joined_edit", edits[0] if len(edits) == 1 else ""
        if len(edits) != 1:
            failures[name] = f"{len(edits)} texts instead of one edit: the program failed there"
    else:
        name, edit = "single_edit", text_of(edit, f"{where}, modified_captions")
    if edit.strip() == text:
        failures[name], edit = "it is the instruction: the program failed there", ""
    elif not edit.strip():
        failures.setdefault(name, "it is empty: the program failed there")
    found[name] = edit
    if "added_content" in own:
        found["objects"] = text_of(own["added_content"], f"{where}, added_content")
        if not found["objects"].strip():
            failures["objects"] = "it is empty: the program failed there"
    return {**found, "failures": failures}


def _target_captions(values: Sequence[Any], benchmark: Benchmark, path: Path) -> Texts:
    galleries = [names for names in benchmark.galleries.values() if len(names) == len(values)]
    if len(galleries) != 1:
        sizes = ", ".join(str(len(names)) for names in benchmark.galleries.values())
        raise ExchangeError(
            f"{path}: captions of {len(values)} {agreed(len(values), 'image')}; they are known by "
            f"their place in the gallery, and {benchmark.name} {benchmark.split} has {sizes} images"
        )
    return Texts(
        form=TARGETS,
        images={
            name: texts_of(own, f"{path}, record {row}")
            for row, (name, own) in enumerate(zip(galleries[0], values, strict=True))
        },
    )


def write_mods(texts: Texts, queries: Sequence[Query], single: bool) -> dict[str, list[Any]]:
    """The ``mods`` file of CIReVL (`single`) or of CVSI, in the order of the queries.

    Failures are written as the programs write them: the instruction, the captions, an empty text.
    """
    columns: dict[str, list[Any]] = {"base_caption": [], "instruction": [], "modified_captions": []}
    for query in queries:
        own = texts.queries[query.query_id]
        columns["instruction"].append(query.text)
        columns["base_caption"].append(own.single_caption if single else list(own.captions))
        failed: Any = query.text if single else list(own.captions)
        edit: Any = own.single_edit if single else [own.joined_edit] if own.joined_edit else []
        columns["modified_captions"].append(edit or failed)
    if not single:
        columns["added_content"] = [texts.queries[query.query_id].objects for query in queries]
    return columns
