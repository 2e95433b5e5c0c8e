"""The curves of a training: as CSV, as a page that loads nothing, and as Prefect artifacts."""

from __future__ import annotations

import base64
import csv
import io
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from typing import Any, Final
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.context import TaskRunContext

from tasks import progress
from tasks.artifacts import publish_markdown
from tasks.report.plots import nice_ceiling
from tasks.training.folder import History

_SECONDS_BETWEEN_UPDATES: Final = 10.0
_COLOURS: Final = ("#2343b0", "#b4530a", "#0a6e3c")
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 520, 230, 52, 26, 12


@dataclass(frozen=True)
class Line:
    """One curve: (step, value) in the order of the steps."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Plot:
    """Curves that share a scale."""

    title: str
    lines: tuple[Line, ...]
    from_zero: bool = True


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


def plots_of(history: History) -> list[Plot]:
    """The curves that a person looks at first: loss, recall, rates, momentum, gradient."""
    logged, judged = history.points, history.validations
    plots = [
        Plot("Training loss", (_line("loss", logged),)),
        Plot(
            "Recall of held-out triplets, percent",
            tuple(
                _line(f"{branch}_recall_{k}", judged, f"R@{k} {branch}", 100.0)
                for branch in ("online", "ema")
                for k in (1, 5)
            ),
        ),
        Plot(
            "Learning rates",
            (_line("lr_new", logged, "new layers"), _line("lr_pretrained", logged, "pre-trained")),
        ),
        Plot("Momentum of the moving average", (_line("momentum", logged),), from_zero=False),
        Plot("Norm of the gradient before clipping", (_line("gradient_norm", logged),)),
        Plot("Temperature", (_line("temperature", logged),)),
    ]
    shown = [
        Plot(plot.title, tuple(line for line in plot.lines if line.points), plot.from_zero)
        for plot in plots
    ]
    return [plot for plot in shown if plot.lines and not _is_constant(plot)]


def _is_constant(plot: Plot) -> bool:
    return plot.title == "Temperature" and len({y for _, y in plot.lines[0].points}) == 1


def _line(key: str, rows: Sequence[dict[str, float]], name: str = "", factor: float = 1.0) -> Line:
    found = tuple((row["step"], factor * row[key]) for row in rows if key in row)
    return Line(name or key.replace("_", " "), found)


def plot_svg(plot: Plot) -> str:
    """A plot as an SVG element whose colours follow the page's text."""
    steps = [x for line in plot.lines for x, _ in line.points]
    values = [y for line in plot.lines for _, y in line.points]
    last = max(steps)
    low, high = _range(values, plot.from_zero)

    def place(x: float, y: float) -> str:
        across = _LEFT + (_WIDTH - _LEFT - 8) * x / last
        up = _HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * (y - low) / (high - low)
        return f"{across:.1f},{up:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="currentColor">'
        f"<title>{escape(plot.title)}</title>"
    ]
    for share in (0.0, 0.5, 1.0):
        value = low + share * (high - low)
        x, y = place(0, value).split(",")
        parts.append(
            f'<line x1="{x}" y1="{y}" x2="{_WIDTH - 8}" y2="{y}" stroke="currentColor" '
            f'stroke-opacity="{0.35 if share == 0 else 0.12}"/>'
            f'<text x="{_LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end" '
            f'fill-opacity="0.7">{value:.4g}</text>'
        )
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        x = place(share * last, low).split(",")[0]
        label = f"{share * last:,.0f}" + (" steps" if share == 1.0 else "")
        parts.append(
            f'<text x="{x}" y="{_HEIGHT - 8}" text-anchor="{anchor}" fill-opacity="0.7">'
            f"{label}</text>"
        )
    for number, line in enumerate(plot.lines):
        colour, dashes = _style(number, line.name)
        coordinates = " ".join(place(x, y) for x, y in line.points)
        parts.append(
            f'<polyline points="{coordinates}" fill="none" stroke="{colour}" stroke-width="1.8" '
            f'stroke-linejoin="round" stroke-dasharray="{dashes}"/>'
        )
        if len(line.points) <= 40:
            parts += [
                f'<circle cx="{dot.split(",")[0]}" cy="{dot.split(",")[1]}" r="2.2" '
                f'fill="{colour}"/>'
                for dot in coordinates.split(" ")
            ]
    return "".join(parts) + "</svg>"


def _range(values: Sequence[float], from_zero: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if from_zero and low >= 0:
        return 0.0, nice_ceiling(high) if high > 0 else 1.0
    air = 0.05 * (high - low) or 0.5 * abs(high) or 1.0
    return low - air, high + air


def _style(number: int, name: str) -> tuple[str, str]:
    """Colour and dashes of a line: the second branch is dashed in the colours of the first."""
    if name.endswith(" ema"):
        return _COLOURS[number % 2], "5 3"
    return _COLOURS[number % len(_COLOURS)], "none"


def curves_page(title: str, history: History) -> str:
    """A complete HTML page that loads nothing."""
    figures = "\n".join(
        f"<figure><figcaption>{escape(plot.title)}{_legend(plot)}</figcaption>"
        f"{plot_svg(plot)}</figure>"
        for plot in plots_of(history)
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ margin: 0 auto; max-width: 74rem; padding: 2rem clamp(1rem, 4vw, 3rem);
  font: 1rem/1.5 system-ui, sans-serif; background: Canvas; color: CanvasText; }}
h1 {{ font-size: 1.5rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }}
p {{ margin: 0 0 1.5rem; opacity: .8; max-width: 46em; }}
main {{ display: grid; gap: 1.5rem 2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }}
figure {{ margin: 0; }}
figcaption {{ font-weight: 600; margin-bottom: .3rem; }}
.key {{ font-weight: 400; font-size: .85rem; margin-right: .9rem; white-space: nowrap; }}
.key svg {{ width: 1.6rem; height: .6rem; vertical-align: middle; margin-right: .3rem; }}
svg {{ display: block; width: 100%; height: auto; }}
.key svg {{ display: inline; }}
</style></head><body>
<h1>{escape(title)}</h1>
<p>{escape(_sentence(history))}</p>
<main>
{figures}
</main></body></html>
"""


def _legend(plot: Plot) -> str:
    if len(plot.lines) < 2:
        return ""
    keys = []
    for number, line in enumerate(plot.lines):
        colour, dashes = _style(number, line.name)
        keys.append(
            f'<span class="key"><svg viewBox="0 0 26 10"><line x1="0" y1="5" x2="26" y2="5" '
            f'stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dashes}"/></svg>'
            f"{escape(line.name)}</span>"
        )
    return f"<div>{''.join(keys)}</div>"


def _sentence(history: History) -> str:
    last = history.points[-1]
    text = f"{last['step']:,.0f} steps, last logged loss {last['loss']:.3f}."
    kept = [row for row in history.validations if row["step"] == history.kept.get("step")]
    if kept:
        first, fifth = (100 * kept[0][f"online_recall_{k}"] for k in (1, 5))
        text += (
            f" The weights of step {kept[0]['step']:,.0f} are kept: R@1 {first:.1f} and R@5 "
            f"{fifth:.1f} percent on held-out generated triplets."
        )
    return text


def validation_table(history: History) -> str:
    """Validations as a Markdown table, the kept one marked."""
    if not history.validations:
        return "No triplets were held out; the last step is kept.\n"
    names = [name for name in history.validations[0] if "recall" in name]
    titles = [name.replace("_recall_", " R@") for name in names]
    lines = [f"| step | {' | '.join(titles)} | |", "|---" * (len(names) + 2) + "|"]
    for row in history.validations:
        values = " | ".join(f"{100 * row[name]:.1f}" for name in names)
        mark = "kept" if row["step"] == history.kept.get("step") else ""
        lines.append(f"| {row['step']:,.0f} | {values} | {mark} |")
    return "\n".join(lines) + "\n"


class ShownProgress:
    """Shows a running training in the terminal, and in Prefect's UI where a task runs."""

    def __init__(
        self,
        key: str,
        steps: int,
        second: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is shown yet.

        Args:
            key: Of the network.
            steps: Optimiser steps of stage one.
            second: What stage two takes, in units of such steps.
            clock: Seconds from some point on.
        """
        self._key = key
        self._steps, self._second = steps, second
        self._clock = clock
        self._done = 0
        self._next = 0.0
        self._artifact: UUID | None = None

    def __enter__(self) -> ShownProgress:
        if TaskRunContext.get() is not None:
            made = None
            with suppress(httpx.HTTPError, OSError):  # no training fails for the lack of a bar
                made = create_progress_artifact(
                    0.0, key=f"training-{self._key}", description="steps of the training"
                )
            self._artifact = made if isinstance(made, UUID) else None  # sync inside a sync task
        return self

    def __exit__(self, *error: Any) -> None:
        return None

    def report(self, step: int, total: int, loss: float) -> None:
        """Note that steps were taken."""
        self._show(step, f"step {step:,} of {total:,}, loss {loss:.3f}")

    def embedded(self, count: int, total: int) -> None:
        """Note how much of what stage two learns from is embedded."""
        text = f"combiner: {count:,} of {total:,} queries and images"
        self._show(self._steps + self._second * count // total, text)

    def _show(self, done: int, text: str) -> None:
        whole = self._steps + self._second
        progress.tick(done - self._done)
        self._done = done
        now = self._clock()
        if self._artifact is None or (now < self._next and done < whole):
            return
        self._next = now + _SECONDS_BETWEEN_UPDATES
        with suppress(httpx.HTTPError, OSError):
            update_progress_artifact(
                self._artifact,
                progress=100.0 * done / whole,
                description=text,
            )


def show_curves(key: str, title: str, history: History, place: str) -> None:
    """Leave a summary with curves in Prefect's UI, where a task runs."""
    if TaskRunContext.get() is None:
        return
    pictures = "\n\n".join(plot_markdown(plot) for plot in plots_of(history))
    head = f"# {title}\n\n{_sentence(history)}\n\n`{place}`"
    text = f"{head}\n\n{validation_table(history)}\n{pictures}\n"
    publish_markdown(f"curves-{key}", text, "curves of the training")


def plot_markdown(plot: Plot) -> str:
    """A plot with its title and the names of its lines."""
    names = ", ".join(line.name for line in plot.lines)
    picture = f"data:image/svg+xml;base64,{_encoded(plot)}"
    return f"**{plot.title}** ({names})\n\n![{plot.title}]({picture})"


def _encoded(plot: Plot) -> str:
    # Inside an image there is no page whose colour could be followed; this one reads on both.
    return base64.b64encode(plot_svg(plot).replace("currentColor", "#808891").encode()).decode()
