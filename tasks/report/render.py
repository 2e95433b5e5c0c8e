"""Render a report or another page as one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from models.spelling import agreed, counted
from tasks.report import audit, bars, costs, leaderboard, spreads, strips, text
from tasks.report.charts import chart_svg
from tasks.report.records import GROUPS, STATUSES, ReportData, Thumbnail


def render_report(data: ReportData) -> str:
    """The report as a complete HTML document.

    The page loads nothing: styles, script and pictures are inside it, and a content security
    policy forbids everything else, so that no text of a model or a user can become more than
    text. It reads fully without its script, which only sorts and filters.

    Args:
        data: The content.

    Returns:
        HTML, to be written as UTF-8.
    """
    return render_page(
        "report.html.j2",
        title=data.title,
        subtitle=data.subtitle,
        created=data.created,
        data=data,
    )


def render_page(
    template: str, *, title: str, subtitle: str, created: str = "", **values: object
) -> str:
    """Fill in a template that extends `base.html.j2`; styles and script are inside the page.

    Args:
        template: File name of the template.
        title: Heading of the page.
        subtitle: A sentence under it.
        created: When, for people; empty in a page that is the same in every run.
        values: Further variables of the template.
    """
    style, script = _source("style.css"), _source("script.js")
    return (
        _environment()
        .get_template(template)
        .render(
            title=title,
            subtitle=subtitle,
            created=created,
            style=style,
            script=script,
            policy=_policy(style, script),
            **values,
        )
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tasks.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.globals |= {
        "leaderboard": leaderboard,
        "AUDIT_COLUMNS": audit.COLUMNS,
        "SPREAD_COLUMNS": spreads.COLUMNS,
        "COST_COLUMNS": costs.COLUMNS,
        "agreed": agreed,
        "counted": counted,
        "count_scale": bars.count_scale,
        "GROUPS": GROUPS,
        "STATUSES": STATUSES,
        "OUTCOMES": strips.OUTCOMES,
    }
    environment.filters |= {
        "ablations": leaderboard.ablations,
        "audit_advice": audit.advice,
        "by_cost": costs.ordered,
        "cost_cells": costs.cells,
        "by_outcome": strips.groups,
        "chart_svg": lambda chart: Markup(chart_svg(chart)),
        "clip": text.clip,
        "compare": text.compare,
        "data_uri": data_uri,
        "duration": text.duration,
        "headline": leaderboard.headline,
        "label": text.label,
        "pairs": strips.pairs,
        "percent": text.percent,
        "plain": text.plain,
        "pretty_json": text.pretty_json,
        "quality_svg": lambda rows, metric: Markup(costs.quality_svg(rows, metric)),
        "rest_columns": audit.rest_columns,
        "rest_rows": audit.rest_rows,
        "solved_rows": audit.solved_rows,
        "spread_rows": spreads.spread_rows,
        "spreads_said": spreads.said,
        "signed": text.signed,
        "span": text.span,
        "thousands": text.thousands,
        "verdict": strips.verdict,
    }
    return environment


def _finalize(value: object) -> object:
    """Replace characters that HTML cannot hold in every plain string on its way into the page."""
    return text.showable(value) if type(value) is str else value


def _source(name: str) -> Markup:
    """A file of ours as it stands, to be placed in the page unescaped."""
    environment = _environment()
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0].strip())


def data_uri(picture: Thumbnail) -> str:
    """A picture as a data URI."""
    return f"data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode('ascii')}"


def _policy(style: str, script: str) -> str:
    """Allow exactly our style, our script and pictures that are inside the page."""

    def digest(source: str) -> str:
        hashed = hashlib.sha256(source.encode()).digest()
        return f"'sha256-{base64.b64encode(hashed).decode('ascii')}'"

    rules = {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": digest(style),
        "script-src": digest(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())
