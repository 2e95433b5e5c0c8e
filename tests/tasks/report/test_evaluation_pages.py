"""An evaluation's page in Prefect's UI, read back from its Markdown."""

from __future__ import annotations

import base64
import io
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tasks.report.records import LeaderboardRow, Result, Section, Strip, Thumbnail

REPORT = Path("/somewhere/out/report.html")


def thumbnail(noise: int, side: int = 112) -> Thumbnail:
    """A picture that no encoder makes small."""
    pixels = random.Random(noise).randbytes(3 * side * side)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (side, side), pixels).save(buffer, "JPEG", quality=85)
    return Thumbnail(buffer.getvalue(), side, side, f"image {noise}")


def strip(query: str, target_rank: int | None, side: int = 16, results: int = 7) -> Strip:
    return Strip(
        query_id=query,
        method="CVSI",
        text=f"text of {query}",
        reference=thumbnail(0, side),
        results=tuple(
            Result(f"g{i}", thumbnail(i + 1, side), 0.5, i + 1 == target_rank)
            for i in range(results)
        ),
        target_rank=target_rank,
    )


def row(method: str, title: str, value: float, paper: dict[str, float]) -> LeaderboardRow:
    return LeaderboardRow(
        method=method,
        title=title,
        group="method",
        split="val",
        backbone="ViT-B-32",
        metrics={"recall@1": value, "recall@5": value + 10},
        intervals={"recall@1": (value - 1, value + 1)},
        num_queries=9,
        paper=paper,
    )


def section(*strips: Strip) -> Section:
    return Section(
        name="cirr-val",
        title="CIRR",
        main_metric="recall@1",
        rows=(row("lincir", "LinCIR", 20.0, {}), row("cvsi", "CVSI", 31.0, {"recall@1": 33.81})),
        strips=strips,
        summary="9 queries, split val.",
        columns=("recall@5", "recall@1"),
    )


def table(page: str, first: str) -> list[list[str]]:
    """Cells of the table whose first heading is `first`."""
    lines = page[page.index(f"| {first} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_methods_stand_best_first_beside_the_papers() -> None:
    from tasks.report.artifact import section_markdown

    page = section_markdown(section(), REPORT, embedded=False)
    head, _, *rows = table(page, "method")
    assert head == ["method", "recall@1", "recall@5", "95 % interval", "paper"]
    assert rows == [
        ["CVSI", "31.00", "41.00", "30.00 to 32.00", "33.81"],
        ["LinCIR", "20.00", "30.00", "19.00 to 21.00", ""],
    ]
    apart = replace(section().rows[1], paper_apart="ViT-L/14, test1")
    page_of_one = section_markdown(replace(section(), rows=(apart,)), REPORT, False)
    _, _, *rows = table(page_of_one, "method")
    assert rows[0][-1] == "33.81 (ViT-L/14, test1)"
    assert r"[report\.html](file:///somewhere/out/report.html)" in page
    assert "not comparable" not in page
    assert "not comparable" in section_markdown(section(), REPORT, embedded=True)


def test_a_report_is_linked_over_http_where_the_service_has_an_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tasks.explorer.evaluations import folder_key
    from tasks.explorer.links import report_link
    from tasks.report.artifact import section_markdown

    def page() -> str:
        return section_markdown(section(), REPORT, False, report_link(REPORT))

    place = f"/reports/{folder_key(REPORT.parent)}/report.html"
    monkeypatch.delenv("CIRFLOW_SERVICE", raising=False)
    assert "(file:///somewhere/out/report.html)" in page()
    monkeypatch.setenv("CIRFLOW_SERVICE", "http://127.0.0.1:8600/")
    assert f"[Full report](http://127.0.0.1:8600{place})" in page()
    assert "file://" not in page()
    for bad in ("javascript:alert(1)", "http://a:secret@b.test", "8600"):
        monkeypatch.setenv("CIRFLOW_SERVICE", bad)
        assert "is not a web address" in page()
        assert bad not in page()
        assert "(file:///somewhere/out/report.html)" in page()


def test_what_differs_stands_next_to_the_method() -> None:
    from tasks.report.artifact import section_markdown

    first, *others = section().rows
    apart = replace(first, differs="network 1|2")
    page = section_markdown(replace(section(), rows=(apart, *others)), REPORT, False)
    head, _, *rows = table(page, "method")
    assert head[:3] == ["method", "what differs", "recall@1"]
    told = {cells[0]: cells[1] for cells in rows}
    assert told == {"CVSI": "", "LinCIR": r"network 1\|2"}
    assert "what differs" not in section_markdown(section(), REPORT, False)


def test_found_and_missed_queries_take_turns_with_their_targets_marked() -> None:
    from tasks.report.artifact import STRIPS, section_markdown

    strips = [strip("a", 1), strip("b", 1), strip("c", 3), strip("d", None), strip("e", 9)]
    head, _, *rows = table(section_markdown(section(*strips), REPORT, False), "query")
    assert head == ["query", "reference", "#1", "#2", "#3", "#4", "#5"]
    assert [re.findall(r"text of (\w)", cells[0])[0] for cells in rows] == ["a", "c", "b"]
    assert len(rows) == STRIPS
    marked = [[i for i, cell in enumerate(cells) if "target**" in cell] for cells in rows]
    assert marked == [[2], [4], [2]]
    assert "(target at rank 3)" in rows[1][0]


def test_pictures_are_whole_and_those_asked_for() -> None:
    from tasks.report.artifact import TOP, section_markdown

    _, _, cells = table(section_markdown(section(strip("a", 1)), REPORT, False), "query")
    data = [re.findall(r"base64,([^)]+)\)", cell)[0] for cell in cells[1:]]
    assert [base64.b64decode(each) for each in data] == [
        thumbnail(i, 16).jpeg for i in range(TOP + 1)
    ]


@pytest.mark.parametrize("results", [0, 2])
def test_a_short_ranking_leaves_empty_places(results: int) -> None:
    from tasks.report.artifact import TOP, section_markdown

    page = section_markdown(section(strip("a", None, results=results)), REPORT, False)
    (line,) = [line for line in page.splitlines() if "text of a" in line]
    assert line.count(" | ") == TOP + 1
    assert line.count("data:image") == 1 + results


def test_large_pictures_cost_queries_and_never_the_size() -> None:
    from tasks.report.artifact import PICTURES, section_markdown

    large = [strip(name, 1, side=112) for name in "abc"]
    one = sum(len(t.jpeg) for t in (large[0].reference, *(r.thumbnail for r in large[0].results)))
    assert one * 4 / 3 > PICTURES / 2  # two do not fit
    page = section_markdown(section(*large), REPORT, False)
    assert page.count("text of") <= 1
    assert len(page.encode()) < PICTURES + 2_000
