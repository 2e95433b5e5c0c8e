"""CVSI's Figure 4 as charts and a page: contours over alpha and beta, curves over gamma and N."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.report import text
from tasks.report.charts import Chart, Contours, Curve
from tasks.report.render import render_page
from tasks.scoring.figure_four import FigureFour


def figure_charts(figure: FigureFour) -> tuple[Contours | Chart, ...]:
    """The parts of the figure: the plane, gamma, and N of target captions where it was swept."""
    own, about = figure.weights, f"{figure.benchmark}: {figure.metric}"
    alpha, beta, highest = max(figure.plane, key=lambda point: point[2])
    place = (own.alpha, own.beta)
    here = next(v for a, b, v in figure.plane if (a, b) == place)
    charts: list[Contours | Chart] = [
        Contours(
            title=f"{about} over alpha and beta, gamma {own.gamma:g}",
            points=figure.plane,
            x_name="alpha (edited captions)",
            y_name="beta (fine-grained text)",
            marks=(
                (f"best: {alpha:g}, {beta:g} ({highest:.2f})", (alpha, beta)),
                (f"profile: {own.alpha:g}, {own.beta:g} ({here:.2f})", place),
            ),
        ),
        _curve(
            f"{about} over gamma, alpha {own.alpha:g}, beta {own.beta:g}",
            "gamma (mean target caption)",
            figure.line,
        ),
    ]
    if figure.targets:
        weights = f"alpha {own.alpha:g}, beta {own.beta:g}, gamma {own.gamma:g}"
        title = f"{about} over N of target captions, {weights}"
        charts.append(_curve(title, "captions of a target image, N", figure.targets))
    return tuple(charts)


def sweeps_page(figures: Sequence[FigureFour], embedded: bool) -> str:
    """A complete HTML page that loads nothing: charts, and their numbers as tables."""
    return render_page(
        "sweeps.html.j2",
        title="Fusion weights and number of target captions",
        subtitle="As CVSI's Figure 4, from cached features.",
        created=text.now(),
        figures=[(figure, figure_charts(figure)) for figure in figures],
        embedded=embedded,
    )


def _curve(title: str, x_name: str, points: Sequence[tuple[float, float]]) -> Chart:
    best, highest = max(points, key=lambda point: point[1])
    return Chart(
        title=title,
        curves=(
            Curve("swept", tuple((float(x), y) for x, y in points)),
            Curve(f"best: {best:g} ({highest:.2f})", ((float(best), highest),), colour=1),
        ),
        x_name=x_name,
        from_zero=False,
    )
