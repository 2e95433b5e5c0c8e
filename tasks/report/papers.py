"""The papers' tables filled from a ledger: published and measured numbers side by side.

A row of the paper has a measured number where the ledger holds the same method on the same
backbone and the real benchmark. Everything else that was measured follows in blocks of its own,
one for each backbone and world, with the same columns; what is missing is explained in words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from models.composed.registry import SYSTEMS
from models.retrieval.methods import METHODS
from models.retrieval.paper_tables import (
    COSTS,
    GENERATORS,
    PUBLISHED,
    Column,
    PaperTable,
    Row,
)
from models.retrieval.published_results import own_backbone, paper_backbone
from storage.benchmarks.registry import BENCHMARKS
from tasks.query_texts import ANNOTATED
from tasks.scoring.making import DETAILS, FACETS, differences
from tasks.stages.rankings import ON_TOP

Entry = Mapping[str, Any]

BY_FAMILY: Final = ("weights", "edit_prompt", "asked_about", "forms", "reference")
"""Facets that a method sets for each benchmark: they tell no two rows of a table apart."""
COSTED: Final = "circo"
"""The benchmark whose costs are shown where several were scored."""
TEXTS: Final = "texts"
"""The facet that says which texts the queries have."""


@dataclass(frozen=True)
class Number:
    """A measured number.

    Attributes:
        value: As measured; percent for metrics, hours or seconds for costs.
        split: The split, where it is not the paper's.
        run: The ranking; empty for a cost.
    """

    value: float
    split: str = ""
    run: str = ""


@dataclass(frozen=True)
class FilledRow:
    """A row of the paper, or a measured one.

    Attributes:
        block: Heading above several rows.
        labels: One for each label column of the table.
        method: Name of the method.
        printed: Published numbers, one a column; empty strings where there are none.
        measured: Measured numbers, one a column; None where there are none.
        reason: Why numbers were not measured, and what would bring them; empty where all were.
    """

    block: str
    labels: tuple[str, ...]
    method: str
    printed: tuple[str, ...]
    measured: tuple[Number | None, ...]
    reason: str = ""


@dataclass(frozen=True)
class FilledTable:
    """A table of a paper with what was measured.

    Attributes:
        table: Its layout.
        published: The paper's rows.
        measured: Rows of other backbones and worlds, or of other models than the paper's.
    """

    table: PaperTable
    published: tuple[FilledRow, ...]
    measured: tuple[FilledRow, ...]


Costs = Mapping[str, Mapping[str, float]]
"""Ranking -> `COSTS` -> hours of training, or seconds a query."""


LeftOut = Mapping[str, Mapping[str, str]]
"""Backbone -> method that did not run on it -> the reason."""


def paper_costs(recorded: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Costs of rankings (`QueryCost.as_json`) in the columns of Table V, without unknown ones."""
    columns = zip(COSTS, ("training_hours", "text_seconds", "retrieval_seconds"), strict=True)
    names = dict(columns)
    return {
        run: {column: cost[name] for column, name in names.items() if cost[name] is not None}
        for run, cost in recorded.items()
    }


def filled(
    table: PaperTable, entries: Sequence[Entry], costs: Costs, left_out: LeftOut | None = None
) -> FilledTable:
    """A table with the numbers of a ledger.

    Args:
        table: The layout.
        entries: Entries of the ledger (`read_ledger`).
        costs: What rankings cost, of those that are known.
        left_out: Methods that were left out on a backbone.
    """
    by_texts = any(TEXTS in row.needs for row in table.rows)
    own = [e for e in entries if _paper_name(e) and (by_texts or annotated(e)) and _is_ours(e)]
    known = [{**e, "differs": told} for e, told in zip(own, differences(own), strict=True)]
    published = tuple(_published(table, row, known, costs) for row in table.rows)
    used = {n.run for row in published for n in row.measured if n is not None}
    blocks: dict[tuple[str, str], list[Entry]] = {}
    for entry in known:
        if entry["run"] not in used:
            blocks.setdefault((entry["world"], entry["backbone"]), []).append(entry)
    merged: dict[tuple[str, str], list[Entry]] = {}
    for (world, backbone), block in blocks.items():
        merged.setdefault((world, _base(backbone)), []).extend(block)
    measured = [
        row
        for (world, backbone), block in sorted(merged.items())
        for row in _block(table, world, backbone, block, costs, (left_out or {}).get(backbone, {}))
    ]
    return FilledTable(table, published, tuple(measured))


# --------------------------------------------------------------------------- the paper's rows


def _published(table: PaperTable, row: Row, entries: Sequence[Entry], costs: Costs) -> FilledRow:
    measured = _fullest(table, [entry for entry in entries if _answers(entry, row)], costs)
    lacking = any(m is None and p for m, p in zip(measured, row.printed, strict=True))
    reason = _reason(table, row, entries) if lacking else ""
    return FilledRow(row.block, row.labels, row.method, row.printed, measured, reason)


def _fullest(
    table: PaperTable, entries: Sequence[Entry], costs: Costs
) -> tuple[Number | None, ...]:
    """The numbers of those entries that were made alike and fill most columns, the last if several.

    A row of the paper is one method: its numbers never come from entries made in several ways.
    """
    found: tuple[Number | None, ...] = (None,) * len(table.columns)
    for variant in _variants(entries):
        own = tuple(_number(column, variant, costs) for column in table.columns)
        if sum(map(bool, own)) >= sum(map(bool, found)):
            found = own
    return found


def _variants(entries: Iterable[Entry]) -> list[list[Entry]]:
    """Entries that were made alike, together; those whose last entry is the oldest first."""
    variants: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        said = ((f, w) for f, w in entry["made"].items() if f not in (*BY_FAMILY, *DETAILS))
        key = (entry["zero_shot"], *sorted(said))
        variants[key] = [*variants.pop(key, []), entry]
    return list(variants.values())


def _answers(entry: Entry, row: Row) -> bool:
    """Whether an entry measures what a row of the paper prints."""
    return (
        entry["world"] == "real"
        and entry["method"] == row.method
        and paper_backbone(_base(entry["backbone"])) == row.backbone
        and entry["zero_shot"] != row.supervised
        and all(
            _is(facet, words, entry["made"].get(facet, "")) for facet, words in row.needs.items()
        )
    )


def _is(facet: str, printed: str, words: str) -> bool:
    """Whether a facet's words are what the paper prints.

    A text generator is told by its names, so that `gpt-4o-mini` is not GPT-4o; texts by their
    source, and a published network by the word, which stand first.
    """
    if facet == "generator":
        pattern = rf"\S+ (\S*/)?{GENERATORS[printed]}( [0-9a-f]{{8}})?"
        return all(re.fullmatch(pattern, own, re.IGNORECASE) for own in words.split(" and "))
    first = facet == TEXTS or printed == PUBLISHED
    return (words.partition(" ")[0] if first else words).lower() == printed.lower()


def annotated(entry: Entry) -> bool:
    """Whether the queries have the benchmark's own texts; earlier versions knew no others."""
    return str(entry["made"].get(TEXTS, ANNOTATED)) == ANNOTATED


def _reason(table: PaperTable, row: Row, entries: Sequence[Entry]) -> str:
    """Why a row of the paper has no measured numbers, and what would bring them."""
    method = METHODS[row.method]
    if not method.runs:
        return f"{method.title} does not run here: {method.reason}"
    if row.method in SYSTEMS or "trained_on" in row.needs:
        return f"no network of this kind was scored: {_brings(row)}; its rows then stand below"
    real = [entry for entry in entries if entry["world"] == "real"]
    wanted = list(dict.fromkeys(c.benchmark for c in table.columns if c.benchmark))
    seen = {_paper_name(entry) for entry in real}
    lacking = [name for name in wanted if name not in seen]
    if lacking:
        given = ", ".join(f'{{"name": "{name}", "folder": "DIR"}}' for name in lacking)
        names = " and ".join(lacking)
        return f"not scored on the real {names}; --set 'benchmarks=[{given}]' names them"
    if not any(paper_backbone(_base(entry["backbone"])) == row.backbone for entry in real):
        name, _, weights = own_backbone(row.backbone).partition(" ")
        return (
            f"{row.backbone} was not scored: --set "
            f'\'backbones=[{{"name": "{name}", "pretrained": "{weights}"}}]\''
        )
    if row.needs:
        said = " and ".join(f"{FACETS[name]} {words}" for name, words in row.needs.items())
        return f"no row was made with {said}"
    return "not scored on every benchmark of the table yet: run the command again"


def _brings(row: Row) -> str:
    """What brings a network of a row."""
    system = SYSTEMS.get(row.method)
    flow, setting = "train-reformulation", "instructcir.checkpoint"
    if system is not None:
        flow, setting = f"train-composed --set system={system.name}", f"composed.{system.name}"
    own = "BENCHMARK:train:FOLDER, its annotated split" if row.supervised else "triplets.json"
    trained = f"`cirflow run {flow}` on {own}"
    if system is not None and system.published is not None:
        trained = f"`cirflow import network {system.name} FILE` of the published one, or {trained}"
    return f"{trained}, then {setting}=FOLDER"


# --------------------------------------------------------------------------- measured blocks


def _block(
    table: PaperTable,
    world: str,
    backbone: str,
    entries: Sequence[Entry],
    costs: Costs,
    left_out: Mapping[str, str],
) -> list[FilledRow]:
    """Rows of one backbone and world, for each method of the table in its order."""
    heading = f"Measured here: {backbone}" + (", embedded world" if world == "embedded" else "")
    rows = []
    for method in dict.fromkeys(row.method for row in table.rows):
        own = [entry for entry in entries if entry["method"] == method]
        variants = _variants(own)
        for variant in variants:
            measured = tuple(_number(column, variant, costs) for column in table.columns)
            if any(measured):
                labels = _labels(table, method, variant, len(variants) > 1)
                reason = _partly(table, measured, world)
                rows.append(_measured_row(heading, labels, method, measured, reason))
        if not own:
            empty: tuple[Number | None, ...] = (None,) * len(table.columns)
            row = next(row for row in table.rows if row.method == method)
            reason = left_out.get(method) or _not_here(row, backbone)
            title = (METHODS[method].title, *("",) * (len(table.labels) - 1))
            rows.append(_measured_row(heading, title, method, empty, reason))
    return rows if any(any(row.measured) for row in rows) else []


def _measured_row(
    heading: str,
    labels: tuple[str, ...],
    method: str,
    measured: tuple[Number | None, ...],
    reason: str,
) -> FilledRow:
    return FilledRow(heading, labels, method, ("",) * len(measured), measured, reason)


def _not_here(row: Row, backbone: str) -> str:
    method = METHODS[row.method]
    if not method.runs:
        return f"{method.title} does not run here: {method.reason}"
    if method.status == "needs_checkpoint":
        return method.reason
    return f"not scored on {backbone}: run the command again with this backbone"


def _partly(table: PaperTable, measured: Sequence[Number | None], world: str) -> str:
    """Why some cells of a measured row are empty; empty where none is."""
    lacking = [c for c, m in zip(table.columns, measured, strict=True) if m is None]
    costs = [c for c in lacking if c.metric in COSTS]
    drawn = [c for c in lacking if world == "embedded" and "/" in c.metric]
    others = dict.fromkeys(c.group for c in lacking if c not in costs and c not in drawn)
    said = [f"not scored on {' and '.join(others)}"] if others else []
    if costs:
        said.append(
            "no cost where the method has no such part, or its tables are older than cost records"
        )
    if drawn:
        said.append("the drawn world has other categories than FashionIQ's: blocks, charms, mixed")
    return "; ".join(said)


def _labels(
    table: PaperTable, method: str, variant: Sequence[Entry], several: bool
) -> tuple[str, ...]:
    """The labels of a measured row: its method, and what tells it from others where it must."""
    made = variant[0]["made"]
    caveat = "" if variant[0]["zero_shot"] else " (not zero-shot)"
    title = f"{METHODS[method].title}{caveat}"
    needed = list(dict.fromkeys(facet for row in table.rows for facet in row.needs))
    told = [made[facet] for facet in needed if facet in made]
    if several and not told:
        told = [variant[0]["differs"]] if variant[0]["differs"] else []
    if needed == [TEXTS]:
        network = f"; network {made['network']}" if "network" in made else ""
        return (f"{told[0]}{network}{caveat}" if told else title,)
    if len(table.labels) == 1:
        return (f"{title}, {', '.join(told)}" if told else title,)
    return (title, *told, *("",) * (len(table.labels) - 1 - len(told)))


# --------------------------------------------------------------------------- numbers


def _number(column: Column, entries: Iterable[Entry], costs: Costs) -> Number | None:
    """The last recorded number of a column; of the paper's split before others."""
    own = list(entries)
    if column.metric in COSTS:
        known = [e for e in own if column.metric in costs.get(e["run"], {})]
        known.sort(key=lambda entry: _paper_name(entry) == COSTED)
        found = [costs[e["run"]][column.metric] for e in known]
        return Number(found[-1]) if found else None
    fitting = [
        entry
        for entry in own
        if _paper_name(entry) == column.benchmark and column.metric in entry["metrics"]
    ]
    if not fitting:
        return None
    last = max(enumerate(fitting), key=lambda pair: (pair[1]["split"] == column.split, pair[0]))[1]
    split = "" if last["split"] == column.split else last["split"]
    return Number(last["metrics"][column.metric]["value"], split, last["run"])


def _is_ours(entry: Entry) -> bool:
    """Whether an entry was measured here, and not imported as predictions."""
    return "source" not in entry["made"]


def _paper_name(entry: Entry) -> str:
    """The papers' name of an entry's benchmark; empty where no paper knows it."""
    facts = BENCHMARKS.get(entry["benchmark"])
    return facts.paper if facts else ""


def _base(backbone: str) -> str:
    """The backbone below a network that was trained on it."""
    return str(backbone).partition(ON_TOP)[0]
