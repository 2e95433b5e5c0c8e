"""A small report: eight methods on one benchmark, three queries and what a run did."""

from __future__ import annotations

import io
from dataclasses import replace

from PIL import Image

from tasks.report.records import (
    LeaderboardRow,
    Provenance,
    ReportData,
    Result,
    Section,
    Strip,
    Thumbnail,
)
from tasks.stages.stage_report import StageReport


def thumbnail(colour: str, alt: str = "a picture") -> Thumbnail:
    """A small JPEG of one colour."""
    encoded = io.BytesIO()
    Image.new("RGB", (24, 16), colour).save(encoded, "JPEG")
    return Thumbnail(encoded.getvalue(), 24, 16, alt)


def row(method: str, group: str, value: float | None, **more: object) -> LeaderboardRow:
    """A row with two metrics, or without any where there is no value."""
    metrics = {} if value is None else {"mAP@5": value, "mAP@10": value / 2}
    given = {"metrics": metrics, "num_queries": 40, **more}
    status = "not_implemented" if value is None else "measured"
    return LeaderboardRow(
        method, method.title(), group, "val", "ViT", **{"status": status, **given}
    )


ROWS = (
    row("cvsi-b", "ablation", 41.0, paper={"mAP@5": 20.0}, delta_intervals={"mAP@5": (-9.5, -8.5)}),
    row("cvsi-a", "ablation", 50.25, paper={"mAP@5": 31.0}, delta_intervals={"mAP@5": (-0.5, 1.0)}),
    row("text", "baseline", 12.3456),
    row("both", "baseline", 30.005, intervals={"mAP@5": (28.04, 32.06)}, note="a <b>note</b>"),
    row("cvsi", "preset", 50.0, paper={"mAP@5": 26.89, "mAP@25": 30.79}, paper_source="Table I"),
    row("lincir", "method", 40.0, intervals={"mAP@10": (19.0, 21.0)}),
    row("instructcir", "method", None),
    row("ldre", "paper-only", None, status="numbers_only", paper={"mAP@5": 23.35}),
)


def results(*targets: int, count: int = 5) -> tuple[Result, ...]:
    """Ranked results, of which some ranks are targets."""
    return tuple(
        Result(f"img-{i}.jpg", thumbnail("red", f"Result {i}"), 0.9 - i / 100, i in targets)
        for i in range(1, count + 1)
    )


def strip(query: str = "7", **more: object) -> Strip:
    """A query of the benchmark, without captions or results unless given."""
    given = {"text": "make it blue", "reference": thumbnail("blue", "Reference"), **more}
    return Strip(query, "CVSI", **given)


STRIPS = (
    strip("1", results=results(2, 4), target_rank=2, added="a blue heart"),
    strip("2", results=results(), target_rank=37, failures=("edit 4: rejected",)),
    strip("3", results=results(1), target_rank=1),
)


def stage(
    title: str, made: int, reused: int, failed: int, seconds: float, where: str
) -> StageReport:
    """The outcome of a stage without broken shards."""
    return StageReport(title, made + reused, reused, made, failed, (), seconds, where)


def report(**more: object) -> ReportData:
    """The report of the embedded world, with changes."""
    section = Section(
        "circo",
        "CIRCO",
        "mAP@5",
        ROWS,
        {"exclude_reference": False},
        STRIPS,
        interval_note="95 % bootstrap",
    )
    given = {
        "sections": (section,),
        "stages": (stage("captions", 30, 60, 10, 125.0, "runs/captions"),),
        "provenance": Provenance(
            {"torch": "2.13"}, {"captions/ab12": {"n": 15}}, ("make demo",), "runs/results"
        ),
    }
    given |= {"embedded_world": True, **more}
    return ReportData("A report", "Of a run", created="2026-11-21", **given)


def with_strips(*strips: Strip) -> ReportData:
    """The report with other queries."""
    return report(sections=(replace(report().sections[0], strips=strips),))
