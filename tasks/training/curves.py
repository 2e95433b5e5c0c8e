"""The curves of a training: as charts, as CSV, as a table, and as a page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean
from typing import Final

from models.spelling import agreed
from tasks.report.charts import Chart, Curve
from tasks.report.render import render_page
from tasks.training.folder import History

POINTS: Final = 100
"""Points at most of the loss of a training that logs each step and nothing else."""
LOGGED_POINTS: Final = 400
"""Points at most of a curve of a training that logs its history."""
BOUND: Final = 0.2
"""Share of the time that steps wait for data, above which data bounds them."""
_STEPS: Final = "steps"
Points = tuple[tuple[float, float], ...]


def curves_csv(history: History) -> str:
    """One row for each logged or validated step; an empty cell where nothing was measured."""
    rows: dict[float, dict[str, float]] = {}
    for row in history.points:
        rows.setdefault(row["step"], {}).update(row)
    for row in history.validations:
        named = {
            name if name in ("step", "epoch") else f"validation_{name}": v
            for name, v in row.items()
        }
        rows.setdefault(row["step"], {}).update(named)
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    sink = io.StringIO()
    writer = csv.DictWriter(sink, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[step] for step in sorted(rows))
    return sink.getvalue()


def history_charts(history: History) -> list[Chart]:
    """Loss, recall, rates, momentum and gradient, as far as they were logged."""
    logged, judged = history.points, history.validations
    recalls = tuple(
        _curve(
            f"{branch}recall_{k}",
            judged,
            _recall_title(f"{branch}recall_{k}"),
            100.0,
            colour,
            dashed,
        )
        for branch, dashed in (("", False), ("online_", False), ("ema_", True))
        for colour, k in enumerate((1, 5))
    )
    rates = (
        _curve("lr_new", logged, "new layers"),
        _curve("lr_pretrained", logged, "pre-trained", colour=1),
    )
    temperature = _curve("temperature", logged)
    learned = len({value for _, value in temperature.points}) > 1
    charts = [
        _chart("Training loss", _curve("loss", logged)),
        _chart("Recall of held-out triplets, percent", *recalls),
        _chart("Learning rates", *rates),
        _chart("Momentum of the moving average", _curve("momentum", logged), from_zero=False),
        _chart("Norm of the gradient before clipping", _curve("gradient_norm", logged)),
        *([_chart("Temperature", temperature)] if learned else []),
    ]
    return [chart for chart in charts if chart.curves]


def _chart(title: str, *curves: Curve, from_zero: bool = True) -> Chart:
    measured = tuple(curve for curve in curves if curve.points)
    return Chart(title, measured, _STEPS, from_zero=from_zero)


def _curve(
    key: str,
    rows: Sequence[dict[str, float]],
    name: str = "",
    factor: float = 1.0,
    colour: int = 0,
    dashed: bool = False,
) -> Curve:
    found = [(row["step"], factor * row[key]) for row in rows if key in row]
    points = smoothed(found, LOGGED_POINTS)
    return Curve(name or key.replace("_", " "), points, colour=colour, dashed=dashed)


def loss_chart(first_step: int, losses: Sequence[float]) -> Chart:
    """The loss of a training that logs nothing else, smoothed to at most `POINTS` points."""
    return _chart("Training loss", Curve("loss", loss_points(first_step, losses)))


def loss_points(first_step: int, losses: Sequence[float]) -> Points:
    """Step and loss, smoothed to at most `POINTS` points."""
    return smoothed([(float(first_step + i), loss) for i, loss in enumerate(losses)], POINTS)


def smoothed(points: Sequence[tuple[float, float]], most: int) -> Points:
    """Last x and mean y of each of at most `most` stretches of nearly equal length."""
    stretches = min(most, len(points))
    ends = (
        [
            len(points) // stretches * i + min(i, len(points) % stretches)
            for i in range(stretches + 1)
        ]
        if stretches
        else []
    )
    return tuple(
        (points[end - 1][0], fmean(y for _, y in points[start:end]))
        for start, end in pairwise(ends)
    )


def history_in_words(history: History) -> str:
    """The last loss, and the recall of the weights that are kept."""
    last = history.points[-1]
    steps = agreed(last["step"], "step")
    text = f"{last['step']:,.0f} {steps}, last logged loss {last['loss']:.3f}."
    kept = [row for row in history.validations if row["step"] == history.kept.get("step")]
    if kept:
        text += f" The weights of step {kept[0]['step']:,.0f} are kept"
        first, fifth = (
            kept[0].get(f"online_recall_{k}", kept[0].get(f"recall_{k}")) for k in (1, 5)
        )
        if first is None or fifth is None:
            text += f": score {kept[0]['score']:.4g} on held-out examples."
        else:
            text += (
                f": R@1 {100 * first:.1f} and R@5 {100 * fifth:.1f} percent on held-out generated "
                "triplets."
            )
    return f"{text}{bound_in_words(history)}"


def bound_in_words(history: History) -> str:
    """Whether data or compute bounds the steps; nothing where that was not measured."""
    if not history.waited or not history.seconds:
        return ""
    share = history.waited / history.seconds
    said = f" The steps waited for data {share:.0%} of the time: bound by "
    return f"{said}data; raise run.workers or run.cache_mb." if share > BOUND else f"{said}compute."


def validation_table(history: History) -> str:
    """Validations as a Markdown table, the kept one marked."""
    if not history.validations:
        return "No triplets were held out; the last step is kept.\n"
    first = history.validations[0]
    names = [name for name in first if "recall" in name] or ["score"]
    titles = [_recall_title(name) for name in names]
    lines = [f"| step | {' | '.join(titles)} | |", "|---" * (len(names) + 2) + "|"]
    for row in history.validations:
        values = " | ".join(
            f"{row[name]:.4g}" if name == "score" else f"{100 * row[name]:.1f}" for name in names
        )
        mark = "kept" if row["step"] == history.kept.get("step") else ""
        lines.append(f"| {row['step']:,.0f} | {values} | {mark} |")
    return "\n".join(lines) + "\n"


def _recall_title(name: str) -> str:
    """`online_recall_5` -> `online R@5`."""
    return name.replace("recall_", "R@").replace("_", " ")


def curves_page(title: str, history: History) -> str:
    """A complete HTML page that loads nothing; the same history gives the same bytes."""
    return render_page(
        "curves.html.j2",
        title=title,
        subtitle=history_in_words(history),
        charts=history_charts(history),
    )
