"""The content of a report, as plain immutable records.

The records carry values and words only: no paths to open, no tensors, no markup. `build` fills
them, `leaderboard` and `strips` compare them, and the templates lay them out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from models.spelling import counted
from tasks.stages.stage_report import StageReport

if TYPE_CHECKING:
    from tasks.scoring.audit import Audit
    from tasks.scoring.costs import QueryCost
    from tasks.scoring.wordings import Spreads

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
Interval = tuple[float, float]

GROUPS: Final[Mapping[str, str]] = {
    "baseline": "Baselines",
    "method": "Methods",
    "preset": "Presets of CVSI",
    "ablation": "Ablations: CVSI with one component taken out",
    "paper-only": "Published only",
}
"""Row group -> heading, in the order in which a leaderboard shows them."""

STATUSES: Final[Mapping[str, str]] = {
    "measured": "",
    "not_implemented": "not implemented here",
    "needs_checkpoint": "needs a checkpoint",
    "numbers_only": "published numbers only",
}
"""Row status -> the words in place of a measurement."""

_JPEG_START = b"\xff\xd8\xff"


@dataclass(frozen=True)
class LeaderboardRow:
    """One system on one benchmark: numbers measured here, and numbers that its authors published.

    Attributes:
        method: Identifier, as typed on the command line.
        title: Name as a reader knows it.
        group: One of `GROUPS`.
        split: Split that was measured.
        backbone: Backbone that was measured; rows are compared within one backbone only.
        on_top: The network that was trained on the backbone, such as ``reformulation``.
        metrics: Metric -> percent, measured here; empty unless the status is ``measured``.
        intervals: Metric -> (low, high) percent around the measured value.
        delta_intervals: Metric -> (low, high) of this row minus the section's reference method,
            in points, from a paired comparison.
        num_queries: Number of measured queries.
        paper: Metric -> percent as published for this system.
        paper_source: Where the published numbers stand: table, backbone, split.
        paper_apart: Backbone and split of the published numbers, to be written next to them;
            empty where they are the row's own, so that both can be compared.
        status: One of `STATUSES`.
        note: One line under the name.
        differs: What tells the row from others of its method in the ledger; empty where there are
            none.
        made: How the row was made: a facet's heading -> words.
        caveat: A warning that every reader of the numbers needs, such as that they are not
            zero-shot.
    """

    method: str
    title: str
    group: str
    split: str
    backbone: str
    on_top: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    delta_intervals: Mapping[str, Interval] = field(default_factory=dict)
    num_queries: int = 0
    paper: Mapping[str, float] = field(default_factory=dict)
    paper_source: str = ""
    paper_apart: str = ""
    status: str = "measured"
    note: str = ""
    differs: str = ""
    made: Mapping[str, str] = field(default_factory=dict)
    caveat: str = ""

    def __post_init__(self) -> None:
        """Refuse rows that would show a number that was neither measured nor published."""
        _one_of("group", self.group, GROUPS, self.method)
        _one_of("status", self.status, STATUSES, self.method)
        if bool(self.metrics) != (self.status == "measured"):
            raise ValueError(
                f"row {self.method!r} has status {self.status!r} and "
                f"{counted(len(self.metrics), 'metric')}: a measured row has metrics, any other "
                "row has none"
            )
        for name, value in [*self.metrics.items(), *self.paper.items()]:
            if not 0.0 <= value <= 100.0:
                raise ValueError(f"row {self.method!r}: {name} is {value!r}, not a percentage")
        for name, (low, high) in [*self.intervals.items(), *self.delta_intervals.items()]:
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ValueError(f"row {self.method!r}: {name} has the interval ({low}, {high})")
        unmeasured = {*self.intervals, *self.delta_intervals} - set(self.metrics)
        if unmeasured:
            raise ValueError(
                f"row {self.method!r} has intervals of metrics without a value: "
                f"{', '.join(sorted(unmeasured))}"
            )


@dataclass(frozen=True)
class Thumbnail:
    """A small picture and the words that stand in for it.

    Attributes:
        jpeg: The encoded picture; it goes into the page as it is, so keep it small.
        width: Width in pixels.
        height: Height in pixels.
        alt: Words for a reader who does not see the picture.
    """

    jpeg: bytes
    width: int
    height: int
    alt: str

    def __post_init__(self) -> None:
        """Refuse bytes that a browser would not show."""
        if not self.jpeg.startswith(_JPEG_START):
            raise ValueError(
                f"thumbnail {self.alt!r} starts with {self.jpeg[:4]!r}, which is not a JPEG: "
                "encode it as JPEG first"
            )
        if self.width < 1 or self.height < 1:
            raise ValueError(f"thumbnail {self.alt!r} is {self.width} x {self.height} pixels")


@dataclass(frozen=True)
class Result:
    """One gallery image in a ranking.

    Attributes:
        name: The benchmark's name of the image.
        thumbnail: Its picture.
        score: Similarity to the query; None where it is not known.
        is_target: Whether it is one of the right answers.
        verdict: P(yes) of a verifier, in a list the probability to be chosen; or why it has none.
            None where none looked at it.
        rank: 1-based rank; None in `Strip.results` means its place in the list, and in
            `Strip.missed` that it was not ranked at all.
    """

    name: str
    thumbnail: Thumbnail
    score: float | None
    is_target: bool
    rank: int | None = None
    verdict: float | str | None = None


@dataclass(frozen=True)
class Strip:
    """One query as one method answered it, with every text that was made on the way.

    Attributes:
        query_id: The benchmark's own identifier of the query.
        method: Title of the method.
        text: Modification text.
        reference: The reference image.
        captions: Captions of the reference image.
        edits: Edited captions. As many as there are captions: shown side by side, the i-th edit
            next to the i-th caption, an empty one as a gap.
        added: The objects that the modification adds, as the text generator says.
        results: The top of the ranking, best first.
        target_rank: 1-based rank of the best-ranked target, or None if it was not found.
        failures: Failures of this query, such as ``edit 4: rejected (empty reply)``.
        missed: Targets that are not among `results`, so that a reader sees the right answers.
        judged: False where the right answers are hidden (test splits).
        edited: The reference as an image editor changed it, where the method searches with that.
    """

    query_id: str
    method: str
    text: str
    reference: Thumbnail
    captions: tuple[str, ...] = ()
    edits: tuple[str, ...] = ()
    added: str = ""
    results: tuple[Result, ...] = ()
    target_rank: int | None = None
    failures: tuple[str, ...] = ()
    missed: tuple[Result, ...] = ()
    judged: bool = True
    edited: Thumbnail | None = None

    def __post_init__(self) -> None:
        """Refuse a strip whose framed targets contradict its rank: a join went wrong."""
        first = next((rank for rank, result in self.ranked if result.is_target), None)
        last = self.ranked[-1][0] if self.results else 0
        shown = self.target_rank is not None and self.target_rank <= last
        if first != (self.target_rank if shown else None):
            raise ValueError(
                f"query {self.query_id!r} by {self.method!r}: target_rank is "
                f"{self.target_rank}, but the first target among the results is at rank {first}"
            )

    @property
    def ranked(self) -> tuple[tuple[int, Result], ...]:
        """The results with their 1-based ranks."""
        return tuple((r.rank or place, r) for place, r in enumerate(self.results, 1))

    @property
    def found(self) -> bool:
        """Whether a target is among the results shown."""
        return any(result.is_target for result in self.results)


@dataclass(frozen=True)
class CostRow:
    """A method's cost and its main metric on one benchmark.

    Attributes:
        method: Identifier.
        title: Name for people.
        quality: Percent.
        cost: Of one query.
    """

    method: str
    title: str
    quality: float
    cost: QueryCost


@dataclass(frozen=True)
class Section:
    """One benchmark.

    Attributes:
        name: Benchmark identifier; one section each.
        title: Heading.
        main_metric: The metric that is drawn and that rows are sorted by.
        rows: The leaderboard, in any order.
        protocol: Every choice that changes a number: split, gallery rule, reference exclusion,
            caption join, preprocessing, similarity, weights tag, coverage, failures...
        strips: Queries to look at, hits and misses both.
        summary: A line or two under the heading.
        columns: Metrics of the leaderboard, in order; empty = every measured metric. Those left
            out stay readable in a table below it.
        reference_method: The method that ablations are compared with.
        ablation_metric: The metric of that comparison; empty = `main_metric`.
        interval_note: How the intervals were made, such as ``95 % bootstrap over queries``.
        costs: What a query of each method costs.
        audit: What one modality alone solves, and the methods on the rest.
        spreads: The methods over paraphrases of the texts.
    """

    name: str
    title: str
    main_metric: str
    rows: tuple[LeaderboardRow, ...]
    protocol: Mapping[str, JsonValue] = field(default_factory=dict)
    strips: tuple[Strip, ...] = ()
    summary: str = ""
    columns: tuple[str, ...] = ()
    reference_method: str = "cvsi"
    ablation_metric: str = ""
    interval_note: str = ""
    costs: tuple[CostRow, ...] = ()
    audit: Audit | None = None
    spreads: Spreads | None = None

    def __post_init__(self) -> None:
        """Refuse a leaderboard whose rows cannot be ranked."""
        for row in self.rows:
            if row.metrics and self.main_metric not in row.metrics:
                raise ValueError(
                    f"section {self.name!r} is ranked by {self.main_metric!r}, which row "
                    f"{row.method!r} lacks; it has {', '.join(row.metrics)}"
                )
        measured = {name for row in self.rows for name in row.metrics}
        unknown = [name for name in self.columns if name not in measured]
        if unknown:
            raise ValueError(
                f"section {self.name!r} asks for the columns {', '.join(unknown)}, which no row "
                f"has; measured are {', '.join(sorted(measured))}"
            )

    @property
    def compared_metric(self) -> str:
        """The metric in which ablations are compared with the reference method."""
        return self.ablation_metric or self.main_metric


@dataclass(frozen=True)
class Provenance:
    """How to make the numbers again.

    Attributes:
        versions: Component -> version or hash.
        specs: ``table/spec_key`` -> the specification behind it.
        commands: Command lines that reproduce the run.
        ledger: Where the results table lies.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    specs: Mapping[str, JsonValue] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    ledger: str = ""


@dataclass(frozen=True)
class ReportData:
    """A whole report.

    Attributes:
        title: Heading of the page.
        subtitle: A sentence under it.
        embedded_world: Whether the numbers come from the embedded world of drawn scenes; the
            page then says so at its top.
        created: When, for people, such as ``2026-11-21 14:03 UTC``.
        sections: One per benchmark.
        stages: Rows that the run made, reused and failed to make, by stage.
        provenance: How to make it again.
    """

    title: str
    subtitle: str
    embedded_world: bool
    created: str
    sections: tuple[Section, ...]
    stages: tuple[StageReport, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        """Refuse two sections for one benchmark."""
        names = [section.name for section in self.sections]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sections are named {', '.join(twice)}: give each its own name")


def _one_of(what: str, value: str, allowed: Mapping[str, str], method: str) -> None:
    if value not in allowed:
        raise ValueError(
            f"row {method!r} has the {what} {value!r}; allowed are {', '.join(allowed)}"
        )
