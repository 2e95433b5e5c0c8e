"""The report against independent readings of the page: a parser, PIL, Decimal and hand counts."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_EVEN, Decimal
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from PIL import Image

from tasks.report import plots, text
from tasks.report.records import (
    LeaderboardRow,
    Provenance,
    ReportData,
    Result,
    Section,
    Stage,
    Strip,
    Thumbnail,
)
from tasks.report.render import render_report

VOID = {"meta", "img", "br", "hr", "input", "link"}

# --------------------------------------------------------------------------- reading a page


@dataclass
class Node:
    """One element of the parsed page."""

    tag: str
    attrs: dict[str, str]
    children: list[Node | str] = field(default_factory=list)

    def find(self, tag: str = "", css: str = "") -> list[Node]:
        """Descendants with a tag name and a class, in document order."""
        found = []
        for child in self.children:
            if isinstance(child, Node):
                if tag in ("", child.tag) and (not css or css in child.classes):
                    found.append(child)
                found += child.find(tag, css)
        return found

    @property
    def classes(self) -> list[str]:
        return self.attrs.get("class", "").split()

    @property
    def words(self) -> str:
        """All text inside, white space collapsed."""
        parts = [child if isinstance(child, str) else child.words for child in self.children]
        return " ".join(" ".join(parts).split())


class Reader(HTMLParser):
    """Builds a tree and refuses tags that do not balance."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Node("", {})]
        self.all: list[Node] = []
        self.feed(page)
        self.close()
        assert [node.tag for node in self.open] == [""]

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute of {tag} is there twice"
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.all.append(node)
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open[-1].tag == tag
        self.open.pop()

    def handle_data(self, data):
        self.open[-1].children.append(data)


def read(data: ReportData) -> Node:
    return Reader(render_report(data)).open[0]


def board_rows(root: Node) -> dict[str, Node]:
    """Method identifier -> its row in the first leaderboard."""
    board = root.find("table", "board")[0]
    return {row.find("code", "id")[0].words: row for row in board.find("tr") if row.find("code")}


def column(root: Node, row: Node, title: str) -> Node:
    """The cell of a row under the first column whose heading starts with `title`."""
    heads = root.find("table", "board")[0].find("thead")[0].find("tr")[-1].find("th")
    place = next(i for i, head in enumerate(heads) if head.words.startswith(title))
    return [child for child in row.children if isinstance(child, Node)][place]


# --------------------------------------------------------------------------- data


def thumbnail(colour: str, alt: str = "a picture") -> Thumbnail:
    encoded = io.BytesIO()
    Image.new("RGB", (24, 16), colour).save(encoded, "JPEG")
    return Thumbnail(encoded.getvalue(), 24, 16, alt)


def row(method: str, group: str, value: float | None, **more: object) -> LeaderboardRow:
    metrics = {} if value is None else {"mAP@5": value, "mAP@10": value / 2}
    given = {"metrics": metrics, "num_queries": 40, **more}
    status = "not_implemented" if value is None else "measured"
    return LeaderboardRow(
        method, method.title(), group, "circo", "val", "ViT", **{"status": status, **given}
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
    return tuple(
        Result(f"img-{i}.jpg", thumbnail("red", f"Result {i}"), 0.9 - i / 100, i in targets)
        for i in range(1, count + 1)
    )


def strip(query: str = "7", **more: object) -> Strip:
    given = {"text": "make it blue", "reference": thumbnail("blue", "Reference"), **more}
    return Strip("circo", query, "CVSI", **given)


STRIPS = (
    strip("1", results=results(2, 4), target_rank=2, added="a blue heart"),
    strip("2", results=results(), target_rank=37, failures=("edit 4: rejected",)),
    strip("3", results=results(1), target_rank=1),
)


def report(**more: object) -> ReportData:
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
        "stages": (Stage("captions", 30, 60, 10, 125.0, "runs/captions"),),
        "provenance": Provenance(
            {"torch": "2.13"}, {"captions/ab12": {"n": 15}}, ("make demo",), "runs/results"
        ),
    }
    given |= {"embedded_world": True, **more}
    return ReportData("A report", "Of a run", created="2026-11-21", **given)


def with_strips(*strips: Strip) -> ReportData:
    return report(sections=(replace(report().sections[0], strips=strips),))


# --------------------------------------------------------------------------- one file, safe


def test_nothing_is_loaded_and_nothing_runs_but_our_script():
    page = Reader(render_report(report()))
    ids = [node.attrs["id"] for node in page.all if "id" in node.attrs]
    assert len(ids) == len(set(ids))
    for node in page.all:
        assert node.tag not in {"link", "iframe", "object", "embed", "base", "form", "video"}
        assert not [name for name in node.attrs if name.startswith("on") or name == "style"]
        for name in ("src", "href", "xlink:href", "srcset", "action", "data"):
            target = node.attrs.get(name, "")
            if target.startswith("#"):
                assert target[1:] in ids
            elif target:
                assert node.tag == "img"
                assert target.startswith("data:image/jpeg;base64,")
    style, script = (page.open[0].find(tag)[0] for tag in ("style", "script"))
    assert len(page.open[0].find("script")) == 1
    assert not re.search(r"url\(|@import|https?:", style.words)
    assert not re.search(r"innerHTML|insertAdjacent|document\.write|https?:", script.words)


def test_policy_allows_exactly_our_style_and_script():
    root = read(report())
    policy = root.find("meta")[1].attrs["content"]
    assert policy.startswith("default-src 'none'; ")
    for kind, tag in (("style-src", "style"), ("script-src", "script")):
        (source,) = root.find(tag)[0].children
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy.split("; ")


HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror='alert(1)'>",
    "' onmouseover=alert(1) x='",
    "</style></title></script><h1>owned",
    "{{ 7 * 7 }} {% raw %} ]]> <!-- &lt;b&gt; &amp;",
    "\u202egnorw \u2066\u200f\u05d0\u05d1",
    "x" * 10_000,
    "nul \x00 bell \x07 lone \ud800 end",
)


def filled(words: str) -> ReportData:
    """A report whose every free text is `words`."""
    picture = thumbnail("red", words)
    marked = replace(
        row("cvsi", "preset", 50.0, paper={"mAP@5": 1.0}, delta_intervals={"mAP@5": (0, 1)}),
        method=words,
        title=words,
        split=words,
        backbone=words,
        note=words,
        paper_source=words,
    )
    cut = replace(row("cut", "ablation", 40.0), title=words, split=words, backbone=words)
    found = (Result(words, picture, 0.5, True), Result(words, picture, None, False))
    strips = [
        Strip(words, words, words, words, picture, (words,) * 5, (words,) * edits, words, found, 1,
              (words,), (Result(words, picture, 0.1, True),))
        for edits in (5, 4)
    ]  # fmt: skip
    section = Section(
        words, words, "mAP@5", (marked, cut), {words: {words: [words]}}, tuple(strips), words,
        reference_method=words, interval_note=words,
    )  # fmt: skip
    return ReportData(
        words, words, True, words, (section,), (Stage(words, 1, 2, 3, 4.0, words),),
        Provenance({words: words}, {words: {words: words}}, (words,), words),
    )  # fmt: skip


@pytest.mark.parametrize("words", HOSTILE, ids=lambda words: ascii(words[:12]))
def test_hostile_text_stays_text(words: str):
    page = render_report(filled(words))
    assert len(page.encode("utf-8")) < 2_000_000  # and it can be encoded at all
    hostile, tame = Reader(page), Reader(render_report(filled("words")))
    assert [n.tag for n in hostile.all] == [n.tag for n in tame.all]
    names = [sorted(n.attrs) for n in hostile.all]
    assert names == [sorted(n.attrs) for n in tame.all]
    shown = re.sub(r"[\x00-\x08\x0b-\x1f\ud800-\udfff]", "\ufffd", words)
    expected = " ".join(shown.split()) if len(words) < 600 else "x" * 600
    root = hostile.open[0]
    for place in (root.find("p", "mod"), root.find("p", "added"), root.find("h1")):
        assert expected in place[0].words
    assert all(expected[:100] in img.attrs["alt"] for img in root.find("img") if len(words) > 100)


def test_overlong_text_is_cut_and_counted():
    root = read(with_strips(strip(text="y" * 10_000)))
    assert root.find("p", "mod")[0].words == "y" * 600 + "\u2026 [9,400 more characters]"


def test_pictures_decode_and_have_words():
    pictures = read(report()).find("img")
    assert len(pictures) == 3 + 15  # three references, three times five results
    for picture in pictures:
        encoded = base64.b64decode(picture.attrs["src"].split(",")[1], validate=True)
        with Image.open(io.BytesIO(encoded)) as image:
            image.load()
            size = (int(picture.attrs["width"]), int(picture.attrs["height"]))
            assert (image.format, image.size) == ("JPEG", size)
        assert picture.attrs["alt"]


def test_same_data_same_page_and_no_heavy_import():
    assert render_report(report()) == render_report(report())
    code = (
        "import sys, tasks.report.render\n"
        "print([m for m in ('torch', 'prefect', 'pyarrow', 'numpy') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# --------------------------------------------------------------------------- leaderboard


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


def test_every_measured_number_is_there_rounded():
    root = read(report())
    shown = board_rows(root)
    assert list(shown) == [
        "both", "text", "lincir", "instructcir", "cvsi", "cvsi-a", "cvsi-b", "ldre",
    ]  # fmt: skip
    for given in ROWS:
        for name, value in given.metrics.items():
            cell = column(root, shown[given.method], name)
            assert cell.find("span", "value")[0].words == two_decimals(value)
            assert float(cell.attrs["data-value"]) == value
    assert shown["both"].find("span", "ci")[0].words == "[28.0, 32.1]"
    assert "a <b>note</b>" in shown["both"].words
    assert "not implemented here" in shown["instructcir"].words
    assert "published numbers only" in shown["ldre"].words


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
        "cvsi": "26.89", "cvsi-a": "31.00", "cvsi-b": "20.00", "ldre": "23.35",
    }  # fmt: skip
    assert cells["cvsi"].attrs["title"] == "Table I"
    full = root.find("details", "numbers")[0]
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
    for given in ROWS:
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
        f"Cvsi-A +0.25 [{minus}0.5, 1.0] within the noise +4.11 differs",
    ]


def test_no_published_column_without_published_numbers():
    rows = tuple(replace(given, paper={}) for given in ROWS if given.metrics)
    root = read(report(sections=(replace(report().sections[0], rows=rows),)))
    assert root.find("td", "pub") == []
    assert root.find("th", "pub") == []


# --------------------------------------------------------------------------- strips


def test_targets_are_framed_and_named():
    root = read(report())
    framed = [item for item in root.find("ol", "results") for item in item.find("li", "target")]
    assert [item.find("span", "rank")[0].words for item in framed] == ["rank 2", "rank 4", "rank 1"]
    assert all("target" in item.find("span", "tag")[0].words for item in framed)
    assert len(root.find("span", "tag")) == 3
    assert root.find("span", "score")[0].words == "0.890"


def test_hits_and_misses_are_grouped():
    root = read(report())
    groups = {g.attrs["data-group"]: g for g in root.find("div", "outcome")}
    queries = {key: [h.words for h in group.find("h5")] for key, group in groups.items()}
    assert queries == {"hit": ["Query 1", "Query 3"], "miss": ["Query 2"]}
    assert groups["miss"].find("span", "verdict")[0].words == "best target at rank 37"
    assert groups["miss"].find("ul", "failures")[0].words == "edit 4: rejected"


def test_sought_targets_and_hidden_answers():
    sought = (Result("t.jpg", thumbnail("lime"), 0.2, True, rank=37),)
    root = read(with_strips(strip(results=results(), target_rank=37, missed=sought)))
    (item,) = root.find("div", "sought")[0].find("li")
    assert item.find("span", "rank")[0].words == "rank 37"
    hidden = read(with_strips(strip(results=results(), judged=False)))
    assert hidden.find("span", "verdict")[0].words == "not judged"


def test_captions_beside_edits_fold_after_three():
    captions = tuple(f"a red circle {i}" for i in range(5))
    edits = (*(f"a blue circle {i}" for i in range(4)), "")
    item = strip(captions=captions, edits=edits, results=results(1), target_rank=1)
    (evidence,) = read(with_strips(item)).find("div", "evidence")
    (details,) = evidence.find("details")
    assert [len(ol.find("li")) for ol in evidence.find("ol")] == [3, 2]
    assert len(details.find("li")) == 2
    assert details.find("summary")[0].words == "2 more"
    lines = evidence.find("li")
    for line, caption, edit in zip(lines, captions, edits, strict=True):
        assert line.find("span", "before")[0].words == caption
        assert line.find("span", "after")[0].words == (edit or "no text")
    assert [node.words for node in lines[0].find("ins")] == ["blue"]
    assert [node.words for node in lines[0].find("del")] == ["red"]


def test_equal_pairs_are_counted_and_unequal_lists_stand_apart():
    same = strip(captions=("a", "b", "a"), edits=("c", "d", "c"))
    (evidence,) = read(with_strips(same)).find("div", "evidence")
    first, second = evidence.find("li")
    assert (first.words, second.words) == ("a edited to c 2\u00d7", "b edited to d")
    joined = strip(captions=("a", "b"), edits=("a and b",))
    first, second = read(with_strips(joined)).find("div", "evidence")
    assert [line.words for line in first.find("li")] == ["a", "b"]
    assert [line.words for line in second.find("li")] == ["a and b"]


# --------------------------------------------------------------------------- run, accessibility


def test_run_protocol_and_provenance_are_told():
    root = read(report())
    (stages,) = root.find("table", "stages")
    assert stages.find("tbody")[0].words == "captions 30 60 10 2 min 05 s runs/captions"
    widths = [rect.attrs["width"] for rect in stages.find("rect")]
    assert widths == ["100%", "30.0%", "60.0%", "10.0%"]
    assert root.find("section", "protocol")[0].find("dl")[0].words == "exclude reference no"
    (spec,) = root.find("details", "spec")
    assert spec.words == 'captions/ab12 { "n": 15 }'
    assert root.find("pre", "commands")[0].words == "make demo"


def test_tables_headings_and_scrolling_boxes_are_usable_without_eyes_or_mouse():
    root = read(report())
    assert all("scope" in head.attrs for head in root.find("th"))
    boxes = root.find("div", "scroll")
    assert len(boxes) >= 3
    for box in boxes:
        assert (box.attrs["tabindex"], box.attrs["role"]) == ("0", "region")
        assert box.attrs.keys() & {"aria-label", "aria-labelledby"}
    levels = [int(node.tag[1]) for node in root.find() if re.fullmatch(r"h[1-6]", node.tag)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_an_empty_report_is_still_a_page():
    empty = ReportData("Nothing yet", "", False, "", ())
    assert read(empty).find("h1")[0].words == "Nothing yet"


# --------------------------------------------------------------------------- pieces


@pytest.mark.parametrize(
    ("points", "shown"),
    [(1.234, "+1.23"), (-1.235e1, "\N{MINUS SIGN}12.35"), (-0.004, "0.00"), (0.0, "0.00")],
)
def test_signed(points: float, shown: str):
    assert text.signed(points) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.44, "0.4 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599.7, "1 h 00 min"),
        (3720, "1 h 02 min"),
    ],
)
def test_duration(seconds: float, shown: str):
    assert text.duration(seconds) == shown


@pytest.mark.parametrize(
    ("value", "ceiling"), [(64.8, 80), (8.0, 8), (0.11, 0.15), (99, 100), (1.0, 1)]
)
def test_nice_ceiling(value: float, ceiling: float):
    assert plots.nice_ceiling(value) == pytest.approx(ceiling)


def test_compare_marks_what_changed():
    pair = text.compare("a red circle", "a blue circle here")
    assert [(p.text, p.changed) for p in pair.before] == [
        ("a", False), ("red", True), ("circle", False),
    ]  # fmt: skip
    assert [(p.text, p.changed) for p in pair.after] == [
        ("a", False), ("blue", True), ("circle", False), ("here", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: row("a", "winners", 1.0), "allowed are baseline"),
        (lambda: row("a", "method", 101.0), "not a percentage"),
        (lambda: row("a", "method", float("nan")), "not a percentage"),
        (lambda: row("a", "method", None, status="measured"), "a measured row has metrics"),
        (lambda: row("a", "method", 5.0, intervals={"mAP@5": (6.0, 4.0)}), "interval"),
        (lambda: row("a", "method", 5.0, intervals={"R@1": (4.0, 6.0)}), "without a value"),
        (lambda: Section("s", "S", "R@1", ROWS), "ranked by 'R@1'"),
        (lambda: Section("s", "S", "mAP@5", ROWS, columns=("R@1",)), "which no row has"),
        (lambda: Thumbnail(b"\x89PNG", 1, 1, "x"), "no JPEG"),
        (lambda: strip(results=results(2), target_rank=1), "rank 2"),
        (lambda: strip(results=results(), target_rank=3), "rank None"),
        (lambda: strip(results=results(2)), "target_rank is None"),
        (lambda: report(sections=report().sections * 2), "two sections"),
    ],
)
def test_contradictions_are_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()
