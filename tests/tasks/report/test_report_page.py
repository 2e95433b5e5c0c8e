"""The report's page as a whole, read by a parser: one safe file that all can use, and the run."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
from PIL import Image

from tasks.report.records import Provenance, ReportData, Result, Section, Strip
from tasks.report.render import render_report
from tests.fakes.report_data import report, row, stage, strip, thumbnail, with_strips
from tests.fakes.report_pages import Reader, read


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
        Strip(words, words, words, picture, (words,) * 5, (words,) * edits, words, found, 1,
              (words,), (Result(words, picture, 0.1, True),))
        for edits in (5, 4)
    ]  # fmt: skip
    section = Section(
        words, words, "mAP@5", (marked, cut), {words: {words: [words]}}, tuple(strips), words,
        reference_method=words, interval_note=words,
    )  # fmt: skip
    return ReportData(
        words, words, True, words, (section,), (stage(words, 1, 2, 3, 4.0, words),),
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
        "heavy = ('torch', 'prefect', 'pyarrow', 'numpy', 'matplotlib')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


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
