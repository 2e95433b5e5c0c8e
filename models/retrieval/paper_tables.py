"""The layout of the two papers' tables: which rows and columns stand where, and what each asks.

The numbers are those of `published_results`. A row asks for a method on a backbone; what tells it
from the method's other rows (a text generator, a network's training data) stands in `needs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from models.composed.registry import SYSTEMS
from models.retrieval.methods import METHODS
from models.retrieval.published_results import (
    PAPER_COSTS,
    PAPER_RESULTS,
    TEST_TEXTS,
    VIT_B32,
    VIT_G14,
    VIT_L14,
    PaperResult,
)

GENERATORS: Final[Mapping[str, str]] = {
    "Llama2-70B": r"llama-?2-70b(-chat)?(-hf)?",
    "GPT-3.5-Turbo": r"gpt-3\.5-turbo(-\d{4})?",
    "GPT-4o": r"gpt-4o(-\d{4}-\d\d-\d\d)?",
}
"""Text generator as printed -> the names that hubs and servers have for it, as a pattern."""

PUBLISHED: Final = "published"
"""What a composed query encoder of a paper's row was trained on, where its own checkpoint is
meant: one that was trained here on other triplets has a row of its own."""

COSTS: Final = ("training", "texts", "retrieval")
"""Columns of CVSI's Table V that are costs and not metrics."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of numbers.

    Attributes:
        group: Heading above several columns, such as a benchmark.
        label: Heading as printed.
        benchmark: The benchmark's name in the papers; empty for a cost.
        split: The split that the paper scores.
        metric: Name of the metric, or one of `COSTS`.
    """

    group: str
    label: str
    benchmark: str
    split: str
    metric: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Attributes:
        block: Heading above several rows.
        labels: One word for each label column.
        method: Name in `METHODS`.
        backbone: The papers' name of the backbone.
        printed: The numbers as printed, one for each column; empty where there is none.
        needs: Facet of a result (`tasks.scoring.making.FACETS`) -> what it must be.
        supervised: Whether it was trained on a benchmark's own triplets.
    """

    block: str
    labels: tuple[str, ...]
    method: str
    backbone: str
    printed: tuple[str, ...]
    needs: Mapping[str, str] = field(default_factory=dict)
    supervised: bool = False


@dataclass(frozen=True, slots=True)
class PaperTable:
    """A table of a paper.

    Attributes:
        paper: `cvsi` or `instructcir`.
        number: Number as printed, or a name.
        title: What it shows.
        labels: Headings of the label columns.
        columns: Columns of numbers.
        rows: Rows in the paper's order.
        note: A remark on the original.
    """

    paper: str
    number: str
    title: str
    labels: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""

    @property
    def key(self) -> str:
        """Name of its files, such as `cvsi-table-1`."""
        return f"{self.paper}-table-{self.number.lower().replace(' ', '-')}"


_MAP: Final = tuple(
    Column("CIRCO", f"mAP@{k}", "circo", "test", f"map@{k}") for k in (5, 10, 25, 50)
)
_CIRR: Final = {k: Column("CIRR", f"R@{k}", "cirr", "test1", f"recall@{k}") for k in (1, 5, 10, 50)}
_SUBSET: Final = {
    k: Column("CIRR", f"Rs@{k}", "cirr", "test1", f"recall_subset@{k}") for k in (1, 2, 3)
}
_FASHION: Final = {
    (name, k): Column(f"FashionIQ {name}", f"R@{k}", "fashioniq", "val", f"recall@{k}/{name}")
    for name in ("shirt", "dress", "toptee", "average")
    for k in (10, 50)
}
_MEAN: Final = Column("FashionIQ average", "Average", "fashioniq", "val", "average")


def _printed(results: Iterable[PaperResult], columns: Sequence[Column]) -> tuple[str, ...]:
    values = {(r.benchmark, name): value for r in results for name, value in r.metrics.items()}
    found = (values.get((column.benchmark, column.metric)) for column in columns)
    return tuple("" if value is None else f"{value:.2f}" for value in found)


def _results(paper: str, table: str) -> list[list[PaperResult]]:
    """Results of a table, those of one printed row together."""
    rows: dict[tuple[object, ...], list[PaperResult]] = {}
    for result in PAPER_RESULTS:
        if (result.paper, result.table) == (paper, table):
            row = (result.backbone, result.method, result.note, result.supervised)
            rows.setdefault(row, []).append(result)
    return list(rows.values())


def _own_name(method: str) -> str:
    """The published system's name: ours is called `NAME-style` where only its description is
    public, and the printed numbers are not those of ours."""
    return METHODS[method].title.removesuffix("-style")


def _by_backbone(table: str, title: str, columns: Sequence[Column], paper: str) -> PaperTable:
    rows = tuple(
        Row(
            block=own[0].backbone,
            labels=(_own_name(own[0].method),),
            method=own[0].method,
            backbone=own[0].backbone,
            printed=_printed(own, columns),
        )
        for own in _results(paper, table)
    )
    return PaperTable(paper.lower(), table, title, ("Method",), tuple(columns), rows)


def _cvsi() -> tuple[PaperTable, ...]:
    ten = (_MAP[1], _FASHION["average", 10])
    costs = (
        Column("Cost", "Training (h)", "", "", "training"),
        Column("Cost", "BLIP-2 + LLM (s a query)", "", "", "texts"),
        Column("Cost", "Retrieval (s a query)", "", "", "retrieval"),
        _MAP[1],
        _CIRR[10],
    )
    return (
        _by_backbone(
            "I",
            "CIRCO and CIRR, test sets",
            (*_MAP, *(_CIRR[k] for k in (1, 5, 10)), *_SUBSET.values()),
            "CVSI",
        ),
        _by_backbone("II", "FashionIQ, validation set", tuple(_FASHION.values()), "CVSI"),
        _by_backbone("III", "Ablations", ten, "CVSI"),
        PaperTable(
            *("cvsi", "IV", "Text generators, CIRCO test", ("Text generator",), _MAP),
            rows=tuple(
                Row(
                    block=own[0].backbone,
                    labels=(own[0].note,),
                    method="cvsi",
                    backbone=own[0].backbone,
                    printed=_printed(own, _MAP),
                    needs={"generator": own[0].note},
                )
                for own in _results("CVSI", "IV")
            ),
        ),
        PaperTable(
            *("cvsi", "V", "Cost and quality, ViT-L/14", ("Method",), costs),
            rows=tuple(
                Row(
                    block=VIT_L14,
                    labels=(_own_name(cost.method),),
                    method=cost.method,
                    backbone=VIT_L14,
                    printed=(cost.training, cost.texts, cost.retrieval, *cost.quality),
                )
                for cost in PAPER_COSTS
            ),
        ),
    )


def _instructcir() -> tuple[PaperTable, ...]:
    zero_shot = (
        *(_CIRR[k] for k in (1, 5, 50)),
        *(_SUBSET[1], _FASHION["average", 10], _FASHION["average", 50], _MEAN),
    )
    ablated = (_CIRR[1], _CIRR[5], _SUBSET[1], _FASHION["average", 10], _FASHION["average", 50])
    return (
        PaperTable(
            *("instructcir", "II", "CIRR test and FashionIQ validation"),
            labels=("Method", "Data source", "Samples"),
            columns=zero_shot,
            rows=tuple(
                Row(
                    block="Supervised" if own[0].supervised else "Zero-shot",
                    labels=(_own_name(own[0].method), *_source(own[0].note)),
                    method=own[0].method,
                    backbone=VIT_L14,
                    printed=_printed(own, zero_shot),
                    needs=_training(own[0]),
                    supervised=own[0].supervised,
                )
                for own in _results("InstructCIR", "II")
            ),
            note="The paper names no backbone in this table; its text says ViT-L/14. Three of its "
            "averages are not the means of their columns. CIRR R@1 39.28 is 38.86 in Table IV.",
        ),
        _by_backbone("III", "CIRCO, test set", _MAP, "InstructCIR"),
        PaperTable(
            *("instructcir", "IV", "Training data, text generators and sizes, ViT-L/14"),
            labels=("Model", "Images", "Captions", "Text generator", "Triplets"),
            columns=ablated,
            rows=tuple(
                Row(
                    block="Scaling up" if place > 4 else "Training data exchanged",
                    labels=(_own_name(own[0].method), *_data(own[0].note)),
                    method=own[0].method,
                    backbone=VIT_L14,
                    printed=_printed(own, ablated),
                    needs={"trained_on": own[0].note},
                    supervised=own[0].supervised,
                )
                for place, own in enumerate(_fourth())
            ),
        ),
        _by_note("V", "Parts of the network, 32k triplets, ViT-L/14", "Network", "trained_on"),
        _by_note(
            TEST_TEXTS,
            "Annotated and generated texts of the test queries",
            "Texts",
            "texts",
            "Section IV-D, 32k triplets. The last printed difference is +0.04; it is 0.05.",
        ),
    )


def _by_note(number: str, title: str, label: str, facet: str, note: str = "") -> PaperTable:
    """A table of InstructCIR whose rows are told apart by one facet: `32k, generated texts`."""
    columns = (_CIRR[1], _CIRR[5], _FASHION["average", 10], _FASHION["average", 50])
    rows = []
    for own in _results("InstructCIR", number):
        words = own[0].note.partition(", ")[2]
        needed = words.removesuffix(" texts") if facet == "texts" else words
        rows.append(
            Row(
                block="",
                labels=(words,),
                method="instructcir",
                backbone=VIT_L14,
                printed=_printed(own, columns),
                needs={facet: needed},
            )
        )
    return PaperTable("instructcir", number, title, (label,), columns, tuple(rows), note)


def _fourth() -> list[list[PaperResult]]:
    """Table IV prints its 32k row of Fashion200k/NLVR in both halves."""
    rows = _results("InstructCIR", "IV")
    return [*rows[:7], rows[4], *rows[7:]]


def _training(result: PaperResult) -> Mapping[str, str]:
    """What the network behind a row of Table II must have been trained on."""
    if result.method in SYSTEMS:
        return {"trained_on": PUBLISHED}
    return {"trained_on": result.note} if result.method == "instructcir" else {}


def _source(note: str) -> tuple[str, str]:
    """Data source and number of samples of `COCO-118k`; some have no number."""
    name, _, size = note.rpartition("-")
    return (name, size) if name and size[0].isdigit() else (note, "")


def _data(note: str) -> tuple[str, str, str, str]:
    """Images, captions, text generator and triplets of `Fashion200k/NLVR/LLaVA/33B-32k`."""
    *images, captions, generator = note.split("/")
    name, _, size = generator.rpartition("-")
    return "/".join(images), captions, name, size


PAPER_TABLES: Final[Mapping[str, tuple[PaperTable, ...]]] = {
    "cvsi": _cvsi(),
    "instructcir": _instructcir(),
}
"""Paper -> its tables, in its order."""

PAPER_TITLES: Final[Mapping[str, str]] = {
    "cvsi": "CVSI: Fine-Grained Zero-Shot Composed Image Retrieval with Complementary "
    "Visual-Semantic Integration",
    "instructcir": "InstructCIR: Scaling Prompt Instructed Zero Shot Composed Image Retrieval with "
    "Image-Only Data",
}

BACKBONES: Final = (VIT_B32, VIT_L14, VIT_G14)
"""The papers' backbones, smallest first."""
