"""Charts read back from their SVG: places of points, what a page's policy allows, same bytes."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from tasks.report.charts import COLOURS, Chart, Curve, chart_markdown, chart_svg
from tasks.report.scaling import Measured, Panel, panel_chart

SVG = "{http://www.w3.org/2000/svg}"
POINTS = ((0.0, 1.0), (10.0, 3.0), (20.0, 2.0), (40.0, 4.0))


def chart(*curves: Curve, **more: object) -> Chart:
    return Chart("Loss", curves or (Curve("loss", POINTS),), "steps", **more)


def drawn(given: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(chart_svg(given))


def dots(root: ElementTree.Element, colour: str = COLOURS[0]) -> list[tuple[float, float]]:
    """Places of a curve's points; the last dot of a colour may be the legend's."""
    found = [use for use in root.iter(f"{SVG}use") if use.get("fill") == colour]
    return [(float(use.get("x")), float(use.get("y"))) for use in found]


def words(root: ElementTree.Element) -> list[str]:
    return [text.text for text in root.iter(f"{SVG}text")]


def test_points_lie_in_proportion_and_more_is_higher():
    places = dots(drawn(chart()))
    assert len(places) == len(POINTS)
    left, width = places[0][0], places[-1][0] - places[0][0]
    for (x, _), (shown, _) in zip(POINTS, places, strict=True):
        assert shown == pytest.approx(left + width * x / 40, abs=0.2)
    (low, bottom), (high, top) = (
        (value, places[[y for _, y in POINTS].index(value)][1]) for value in (1.0, 4.0)
    )
    for (_, y), (_, shown) in zip(POINTS, places, strict=True):
        assert shown == pytest.approx(bottom + (top - bottom) * (y - low) / (high - low), abs=0.2)
    assert top < bottom


def test_axes_start_at_zero_unless_told_otherwise_and_are_labelled_in_words():
    momentum = Curve("momentum", ((1.0, 0.996), (1500.0, 1.0)))
    labels = words(drawn(chart(momentum)))
    assert "0" in labels
    assert "1,500" in labels
    assert "steps" in labels
    assert "0.996" not in labels
    assert "0.996" in words(drawn(chart(momentum, from_zero=False)))


def test_levels_and_several_curves_have_a_legend_and_one_curve_has_none():
    two = (Curve("online", POINTS), Curve("ema", POINTS, colour=1, dashed=True))
    root = drawn(chart(*two, levels=(("cvsi 3.5", 3.5),)))
    assert words(root)[-3:] == ["online", "ema", "cvsi 3.5"]
    assert "loss" not in words(drawn(chart()))
    dashed = {e.get("stroke") for e in root.iter() if "stroke-dasharray" in e.attrib}
    assert dashed == {COLOURS[1], COLOURS[2]}
    (level,) = {e.get("d") for e in root.iter() if e.get("stroke") == COLOURS[2] and "d" in e.attrib
                and "clip-path" in e.attrib}  # fmt: skip
    height = float(re.findall(r"[\d.]+", level)[1])
    ((_, above), (_, below)) = dots(root)[3], dots(root)[1]
    assert height == pytest.approx((above + below) / 2, abs=0.2)  # 3.5 between 4 and 3


def test_doubling_the_set_is_the_same_step_everywhere_on_the_axis():
    curve = tuple(
        Measured(100 * n, 40.0 + i, 38.0 + i, 43.0 + i) for i, n in enumerate((1, 2, 4, 8))
    )
    root = drawn(panel_chart(Panel("CIRR", "recall@1", curve, (("lincir", 20.0),), ())))
    places = dots(root)[:4]
    steps = [b[0] - a[0] for a, b in pairwise(places)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.2)
    assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)
    for text in ("100", "200", "400", "800", "triplets", "lincir 20.0"):
        assert text in words(root)
    whiskers = [
        sorted(float(n) for n in re.findall(r"[\d.]+", e.get("d"))[1::2])
        for e in root.iter(f"{SVG}path")
        if e.get("stroke") == COLOURS[0] and e.get("stroke-opacity") == "0.5"
    ]
    for (_, y), (top, bottom) in zip(places, whiskers, strict=True):
        assert top < y < bottom
        assert (bottom - y) / (y - top) == pytest.approx(2 / 3, abs=0.1)


def test_a_page_with_a_strict_policy_can_hold_several():
    others = chart(Curve("other", POINTS, colour=1))
    svgs = [chart_svg(chart()), chart_svg(Chart("Other", others.curves, "steps"))]
    ids = [re.findall(r'id="(\w+)"', svg) for svg in svgs]
    assert len({*ids[0], *ids[1]}) == len(ids[0]) + len(ids[1])
    for svg, own in zip(svgs, ids, strict=True):
        assert not re.search(r"style|<script|#010203|https?://(?!www.w3.org/2000/svg)", svg)
        assert "currentColor" in svg
        assert set(re.findall(r'(?:href="|url\()#(\w+)', svg)) == set(own)


def test_names_stay_names():
    name = 'a <b> & "c" $x^2$'
    root = drawn(Chart(name, (Curve(name, POINTS), Curve("d", POINTS)), name))
    assert words(root).count(name) == 2
    assert root.find(f"{SVG}title").text == name


def test_same_chart_same_bytes_in_another_process():
    code = (
        "import sys\n"
        "from tasks.report.charts import Chart, Curve, chart_svg\n"
        "assert 'matplotlib' not in sys.modules\n"
        f"print(chart_svg(Chart('Loss', (Curve('loss', {POINTS!r}),), 'steps')))\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == chart_svg(chart())


def test_markdown_holds_the_picture_in_a_colour_of_its_own():
    shown = chart_markdown(chart())
    assert shown.startswith("**Loss** (loss)\n\n![Loss](data:image/svg+xml;base64,")
    svg = base64.b64decode(shown.rsplit(",", 1)[1].rstrip(")")).decode()
    assert "currentColor" not in svg
    assert dots(ElementTree.fromstring(svg)) == dots(drawn(chart()))
