"""The report's leaderboard against Decimal and hand counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import ROUND_HALF_EVEN, Decimal

import pytest

from tasks.report import leaderboard, text
from tasks.report.records import Section
from tests.fakes.report_data import ROWS, report, row, stage
from tests.fakes.report_pages import Node, board_rows, column, read


def two_decimals(value: float) -> str:
    return str(Decimal(value).quantize(Decimal("0.01"), ROUND_HALF_EVEN))


def test_a_caveat_and_what_was_trained_stand_under_the_name():
    label = "not zero-shot: trained on <CIRR>"
    marked = row("instructcir", "method", 60.0, caveat=label, on_top="reformulation")
    rows = tuple(each for each in ROWS if each.method != "instructcir")
    section = replace(report().sections[0], rows=(*rows, marked))
    root = read(report(sections=(section,)))
    shown = board_rows(root)
    assert [node.words for node in root.find("span", "caveat")] == [label]
    assert shown["instructcir"].find("span", "caveat")
    assert "ViT + reformulation" in shown["instructcir"].words
    # It is compared with methods on the same backbone: bold, and the difference to CVSI is there.
    assert shown["instructcir"].find("span", "best")
    assert not shown["cvsi"].find("span", "best")
    assert column(root, shown["instructcir"], "vs").words.startswith("+10.00")


def test_what_differs_stands_next_to_the_method_and_how_rows_were_made_below():
    made = {"network": "<1>", "trained on": "40 steps"}
    rows = (row("a", "method", 40.0, differs="network <1>", made=made), row("b", "method", 30.0))
    root = read(report(sections=(Section("s", "S", "mAP@5", rows),)))
    shown = board_rows(root)
    assert column(root, shown["a"], "What differs").words == "network <1>"
    assert column(root, shown["b"], "What differs").words == ""
    cells = [child for child in shown["a"].children if isinstance(child, Node)]
    assert cells[1] is column(root, shown["a"], "What differs")
    (table,) = root.find("table", "made")
    assert [line.words for line in table.find("tr")] == ["A network <1> trained on 40 steps"]
    assert not read(report()).find("table", "made")
    assert not read(report()).find("td", "differs")


def test_every_measured_number_is_there_rounded():
    root = read(report())
    shown = board_rows(root)
    assert list(shown) == [
        "both", "text", "lincir", "instructcir", "cvsi", "cvsi-a", "cvsi-b",
    ]  # fmt: skip
    for given in ROWS:
        for name, value in given.metrics.items():
            cell = column(root, shown[given.method], name)
            assert cell.find("span", "value")[0].words == two_decimals(value)
            assert float(cell.attrs["data-value"]) == value
    assert shown["both"].find("span", "ci")[0].words == "[28.0, 32.1]"
    assert "a <b>note</b>" in shown["both"].words
    assert "not implemented here" in shown["instructcir"].words


def test_what_is_only_published_stands_folded_below():
    root = read(report())
    (folded,) = [d for d in root.find("details") if "Published only: 1 system" in d.words]
    assert "open" not in folded.attrs
    assert "published numbers only" in folded.words
    assert "23.35" in folded.words
    board = root.find("table", "board")[0].words
    assert "Ldre" not in board
    none = tuple(given for given in ROWS if given.group != "paper-only")
    without = read(report(sections=(replace(report().sections[0], rows=none),)))
    assert not [d for d in without.find("details") if "Published only" in d.words]


def test_best_is_bold_and_ties_as_printed_share_it():
    rows = (row("one", "method", 40.001), row("two", "method", 40.0), row("three", "method", 39.0))
    root = read(report(sections=(Section("s", "S", "mAP@5", rows),)))
    best = {name: len(line.find("span", "best")) for name, line in board_rows(root).items()}
    assert best == {"one": 2, "two": 2, "three": 0}


def test_backbones_are_compared_with_themselves_only():
    large = tuple(
        replace(given, backbone="ViT-L", metrics={"mAP@5": given.metrics["mAP@5"] + 10})
        for given in ROWS
        if given.method in ("cvsi", "text")
    )
    section = replace(report().sections[0], rows=ROWS + large)
    root = read(report(sections=(section,)))
    lines = [r for r in root.find("table", "board")[0].find("tr") if "ViT-L" in r.words]
    assert [line.find("td", "delta")[0].words for line in lines] == [text.signed(-37.6544), ""]
    bold = [node.words for node in root.find("span", "best")]
    assert Counter(bold) == Counter(["60.00", "50.25", "25.12"])


def test_published_numbers_are_marked_as_such():
    root = read(report())
    heads = root.find("table", "board")[0].find("th", "pub")
    assert heads[0].words == "Published, real benchmark"
    cells = {name: line.find("td", "pub")[0] for name, line in board_rows(root).items()}
    assert {name: cell.words for name, cell in cells.items() if cell.words} == {
        "cvsi": "26.89", "cvsi-a": "31.00", "cvsi-b": "20.00",
    }  # fmt: skip
    assert cells["cvsi"].attrs["title"] == "Table I"
    full = next(d for d in root.find("details", "numbers") if "sources" in d.words)
    assert "30.79" in full.words
    assert "Table I" in full.words


def test_the_embedded_world_says_so_and_keeps_published_marks_off_its_bars():
    embedded, real = read(report()), read(report(embedded_world=False))
    (banner,) = embedded.find("div", "banner")
    assert "not comparable with published ones" in banner.words
    assert real.find("div", "banner") == []
    assert embedded.find("line", "mark") == []
    assert len(real.find("line", "mark")) == 3  # cvsi and two ablations have both numbers


def test_columns_left_out_stay_readable():
    section = replace(report().sections[0], columns=("mAP@5",))
    root = read(report(sections=(section,)))
    assert "mAP@10" not in root.find("table", "board")[0].words
    rest = next(d for d in root.find("details") if "other measured metric" in d.words)
    assert "25.00" in rest.words  # mAP@10 of cvsi


def test_bars_and_whiskers_have_the_right_lengths():
    lines = board_rows(read(report()))
    # The largest value is 50.25, so the axis ends at 60.
    for given in (each for each in ROWS if each.group != "paper-only"):
        fills = lines[given.method].find("rect", "fill")
        if not given.metrics:
            assert fills == []
            continue
        width = float(fills[0].attrs["width"].rstrip("%"))
        assert width == pytest.approx(given.metrics["mAP@5"] / 60 * 100, abs=1e-3)
    (whisker,) = lines["both"].find("g", "whisker")
    ends = whisker.find("line")[0].attrs
    assert float(ends["x1"].rstrip("%")) == pytest.approx(28.04 / 60 * 100, abs=1e-3)
    assert float(ends["x2"].rstrip("%")) == pytest.approx(32.06 / 60 * 100, abs=1e-3)


def test_headline_names_the_best_system_and_its_lead():
    (tile,) = read(report()).find("ul", "headlines")[0].find("li")
    assert tile.find("span", "big")[0].words == "50.00"
    # Over the better of two baselines; the ablation with 50.25 is no system.
    lead = two_decimals(50.0 - 30.005)
    assert f"Cvsi , +{lead} over Both, the best baseline" in tile.words


def test_components_show_change_noise_and_the_papers_direction():
    (table,) = read(report()).find("table", "changes")
    lines = [line.words for line in table.find("tbody")[0].find("tr")]
    # Largest loss first. Published: 20.00 - 26.89 and 31.00 - 26.89.
    minus = "\N{MINUS SIGN}"
    assert lines == [
        f"Cvsi-B {minus}9.00 [{minus}9.5, {minus}8.5] {minus}6.89 same direction",
        f"Cvsi-A +0.25 [{minus}0.5, 1.0] within the noise +4.11",
    ]


def test_a_published_number_of_another_run_says_so_and_is_not_drawn():
    apart = "ViT-L/14, test"
    rows = tuple(
        replace(given, paper_apart=apart) if given.method == "cvsi" else given for given in ROWS
    )
    root = read(report(embedded_world=False, sections=(replace(report().sections[0], rows=rows),)))
    shown = board_rows(root)
    (cell,) = shown["cvsi"].find("td", "pub")
    assert cell.words == f"26.89 {apart}"
    assert shown["cvsi-a"].find("td", "pub")[0].words == "31.00"
    # The bars of the others have a mark where it is published, this one has none.
    assert not shown["cvsi"].find("line", "mark")
    assert shown["cvsi-a"].find("line", "mark")
    # Its ablations were published on another backbone or split: no difference is taken.
    (table,) = root.find("table", "changes")
    assert "direction" not in table.words
    assert "differs" not in table.words


def test_no_published_column_without_published_numbers():
    rows = tuple(replace(given, paper={}) for given in ROWS if given.metrics)
    root = read(report(sections=(replace(report().sections[0], rows=rows),)))
    assert root.find("td", "pub") == []
    assert root.find("th", "pub") == []


def test_a_published_number_of_another_backbone_or_split_says_so_and_is_not_drawn():
    apart = "ViT-L/14, test1"
    rows = tuple(
        replace(given, paper_apart=apart) if given.method in ("cvsi", "cvsi-b") else given
        for given in ROWS
    )
    section = replace(report().sections[0], rows=rows)
    root = read(report(sections=(section,), embedded_world=False))
    cells = {name: line.find("td", "pub")[0].words for name, line in board_rows(root).items()}
    assert cells["cvsi"] == f"26.89 {apart}"
    assert cells["cvsi-a"] == "31.00"
    assert len(root.find("line", "mark")) == 1  # of cvsi-a
    (table,) = root.find("table", "changes")
    published = [line.find("td", "pub")[0].words for line in table.find("tbody")[0].find("tr")]
    assert published == ["\N{MINUS SIGN}6.89 same direction", ""]  # cvsi-a is of another run


def test_bars_are_scaled_by_what_is_drawn():
    marked = replace(ROWS[0], paper={"mAP@5": 95.0})
    drawn, apart = (
        read(
            report(
                sections=(replace(report().sections[0], rows=(given, *ROWS[1:])),),
                embedded_world=False,
            )
        ).find("svg", "axis")[0].words
        for given in (marked, replace(marked, paper_apart="of another split"))
    )  # fmt: skip
    assert drawn == "0 50 100"
    assert apart == "0 30 60"


def test_a_report_of_one_query_counts_it_as_one():
    section = Section("s", "S", "mAP@5", (row("a", "method", 40.0, num_queries=1),))
    said = leaderboard.facts(section)
    assert said[-2:] == ("1 query", f"backbone {section.rows[0].backbone}")
    stages = (stage("captions", 1, 0, 0, 1.0, "runs/captions"),)
    page = read(report(sections=(section,), stages=stages))
    assert "1 query" in page.words
    assert "1 row made" in page.words
