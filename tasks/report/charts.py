"""Charts of the pages as SVG, drawn by matplotlib without a display.

Text stays text and takes its colour from the page, lines have colours that read on light and on
dark ground, and the same chart is the same bytes.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree

from tasks.report.markdown import plain
from tasks.report.records import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT, TALL = 440, 220, 330
FILLS: Final = ("#eef2fd", "#7f9bf0")
"""Colours of the lowest and the highest contour: dark text reads on both."""
_ON_FILLS: Final = "#101820"
COLOURS: Final = ("#5577e6", "#c8660f", "#1f9a60", "#b05ccc")
"""At least three to one against the pages' light and dark grounds."""
INK: Final = "#010203"
"""Stands for the page's own colour of text while matplotlib draws."""
_GREY: Final = "#808891"
"""Colour of text in a chart that is an image and so cannot follow the page's colour."""
_MARKED: Final = 40
"""A curve of at most so many points shows each as a dot."""


@dataclass(frozen=True)
class Curve:
    """One curve of a chart.

    Attributes:
        name: As the legend shows it.
        points: (x, y) in the order of x.
        intervals: (low, high) of each point, drawn as whiskers; empty for none.
        colour: Place in `COLOURS`.
        dashed: Whether the line is dashed.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    intervals: tuple[Interval, ...] = ()
    colour: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Chart:
    """Curves that share both axes.

    Attributes:
        title: The subject in words.
        curves: At least one, with at least one point each.
        x_name: Label of the horizontal axis.
        levels: Name and value of each horizontal line to compare with.
        from_zero: Whether the vertical axis starts at zero where no value is negative.
        doubling: Whether each doubling of x is an equal step; every x is then labelled.
    """

    title: str
    curves: tuple[Curve, ...]
    x_name: str
    levels: tuple[tuple[str, float], ...] = ()
    from_zero: bool = True
    doubling: bool = False


@dataclass(frozen=True)
class Contours:
    """A value over two variables, as filled contours.

    Attributes:
        title: The subject in words.
        points: (x, y, value), at least three that do not lie on one line.
        x_name: Label of the horizontal axis.
        y_name: Label of the vertical axis.
        marks: Name and place of each setting to point out.
    """

    title: str
    points: tuple[tuple[float, float, float], ...]
    x_name: str
    y_name: str
    marks: tuple[tuple[str, tuple[float, float]], ...] = ()


def chart_svg(chart: Chart | Contours) -> str:
    """An SVG element without styles, scripts or addresses, to be placed in a page."""
    if isinstance(chart, Chart):
        return drawn(chart.title, WIDTH, HEIGHT, lambda axes: _draw(axes, chart))
    return drawn(chart.title, WIDTH, TALL, lambda axes: _draw_contours(axes, chart))


def drawn(title: str, width: int, height: int, draw: Callable[[Axes], None]) -> str:
    """An SVG element for pages.

    Args:
        title: Names the picture for people who do not see it.
        width: In points.
        height: In points.
        draw: Draws into the axes; what has the colour `INK` takes the page's own.
    """
    import matplotlib
    from matplotlib.figure import Figure

    drawing = io.StringIO()
    # The names of a drawing's parts must be the same in every run and differ within a page.
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": title, "text.parse_math": False}
    ):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        figure.patch.set_visible(False)
        draw(figure.add_subplot())
        figure.savefig(drawing, format="svg", metadata={"Date": None})
    return _for_pages(drawing.getvalue(), title)


def rule(axes: Axes) -> None:
    """Faint lines across, a line below, and no frame."""
    axes.tick_params(length=0, colors=INK)
    axes.grid(axis="y", color=INK, alpha=0.15, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.patch.set_visible(False)
    for side, spine in axes.spines.items():
        spine.set(visible=side == "bottom", color=INK, alpha=0.35)


def chart_file(chart: Chart | Contours) -> str:
    """A chart as an SVG file of its own, its text grey: there is no page to take a colour from."""
    return chart_svg(chart).replace("currentColor", _GREY)


def chart_markdown(chart: Chart | Contours) -> str:
    """A chart with its title and the names in its legend, as Prefect's UI shows it."""
    own = (
        [c.name for c in chart.curves] if isinstance(chart, Chart) else [n for n, _ in chart.marks]
    )
    title, names = plain(chart.title), plain(", ".join(own))
    picture = base64.b64encode(chart_file(chart).encode()).decode()
    return f"**{title}** ({names})\n\n![{title}](data:image/svg+xml;base64,{picture})"


def _draw(axes: Axes, chart: Chart) -> None:
    for curve in chart.curves:
        xs, ys = zip(*curve.points, strict=True)
        colour = COLOURS[curve.colour % len(COLOURS)]
        for x, interval in zip(xs, curve.intervals, strict=False):
            axes.plot((x, x), interval, color=colour, alpha=0.5, linewidth=2.5, clip_on=False)
        axes.plot(
            xs,
            ys,
            color=colour,
            label=curve.name,
            linestyle=(0, (4, 2)) if curve.dashed else "-",
            linewidth=1.8,
            marker="o" if len(xs) <= _MARKED else "",
            markersize=5 if curve.intervals else 3.5,
            clip_on=False,
        )
    for place, (name, value) in enumerate(chart.levels, len(chart.curves)):
        colour = COLOURS[place % len(COLOURS)]
        axes.axhline(value, color=colour, label=name, linestyle=(0, (2, 2)), linewidth=1.4)
    _scale(axes, chart)
    axes.set_xlabel(chart.x_name, color=INK, alpha=0.7)
    rule(axes)
    names = [curve.name for curve in chart.curves] + [name for name, _ in chart.levels]
    if len(names) > 1:
        axes.figure.legend(
            loc="outside upper left",
            ncols=max(1, 64 // (max(map(len, names)) + 6)),
            frameon=False,
            labelcolor=INK,
        )


def _draw_contours(axes: Axes, chart: Contours) -> None:
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.ticker import MaxNLocator

    xs, ys, values = zip(*chart.points, strict=True)
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    levels = MaxNLocator(8, steps=(1, 2, 2.5, 5, 10)).tick_values(low, high)
    fills = LinearSegmentedColormap.from_list("fills", FILLS)
    filled = [*levels[:-1], levels[-1] + 1e-6]  # a plateau at the top is filled too
    axes.tricontourf(xs, ys, values, levels=filled, cmap=fills)
    lines = axes.tricontour(xs, ys, values, levels=levels, colors=_ON_FILLS, linewidths=0.6)
    axes.clabel(lines, fmt=lambda level: f"{level:g}", fontsize=8, colors=_ON_FILLS)
    for place, (name, (x, y)) in enumerate(chart.marks):
        axes.plot(
            x,
            y,
            color=COLOURS[1],
            label=name,
            linestyle="",
            marker="*os"[place % 3],
            markersize=(12, 9, 9)[place % 3],
            markerfacecolor=COLOURS[1] if place == 0 else "none",
            markeredgewidth=1.6,
            clip_on=False,
        )
    axes.set_xlabel(chart.x_name, color=INK, alpha=0.7)
    axes.set_ylabel(chart.y_name, color=INK, alpha=0.7)
    axes.tick_params(length=0, colors=INK)
    axes.set_aspect("equal")
    axes.patch.set_visible(False)
    for spine in axes.spines.values():
        spine.set(visible=False)
    if chart.marks:
        axes.legend(loc="upper right", frameon=False, labelcolor=INK)


def _scale(axes: Axes, chart: Chart) -> None:
    """Limits at round numbers, few labels."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    xs = [x for curve in chart.curves for x, _ in curve.points]
    ys = [y for curve in chart.curves for _, y in curve.points]
    ys += [y for curve in chart.curves for interval in curve.intervals for y in interval]
    ys += [y for _, y in chart.levels]
    low = min(0.0, *ys) if chart.from_zero else min(ys)
    marks = MaxNLocator(4, steps=(1, 2, 2.5, 5, 10)).tick_values(low, max(ys))
    axes.set_yticks(marks, [f"{mark:.6g}" for mark in marks])
    axes.set_ylim(marks[0], marks[-1])
    if chart.doubling:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(xs, [f"{x:,.0f}" for x in xs])
    else:
        axes.set_xlim(0, max(xs))
        whole = all(x == int(x) for x in xs)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=whole))
        axes.xaxis.set_major_formatter("{x:,.0f}" if whole else "{x:g}")


def _for_pages(svg: str, title: str) -> str:
    """Matplotlib's SVG without styles, so that a page with a strict content policy can hold it."""
    svg = svg.replace(' xmlns="http://www.w3.org/2000/svg"', "").replace("xlink:href", "href")
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style") or (child.tag == "defs" and not len(child)):
                parent.remove(child)
    used = set(re.findall(r'(?:href="|url\()#(\w+)', svg))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        for declaration in element.attrib.pop("style", "").split("; "):
            name, _, value = declaration.partition(": ")
            if name and name != "font-family":
                element.set(name, value.replace(INK, "currentColor"))
        for name in ("d", "x", "y"):
            if name in element.attrib:
                element.set(name, re.sub(r"(\.\d)\d+", r"\1", element.attrib[name]).strip())
        if element.get("transform", "").startswith("rotate(-0 "):
            del element.attrib["transform"]
    del root.attrib["width"], root.attrib["height"]
    root.attrib |= {
        "xmlns": "http://www.w3.org/2000/svg",
        "class": "chart",
        "role": "img",
        "fill": "currentColor",
        "font-family": "system-ui, sans-serif",
        "stroke-linejoin": "round",
    }
    ElementTree.SubElement(root, "title").text = title
    root.insert(0, root[-1])
    del root[-1]
    return re.sub(r"\s*\n\s*", " ", ElementTree.tostring(root, encoding="unicode"))
