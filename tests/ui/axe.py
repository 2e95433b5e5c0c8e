"""What axe-core finds on a page: faults that keep somebody from reading or using it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Page

GRAVE = ("serious", "critical")
"""Impacts that count, in axe-core's words."""
WIDTHS = (1400, 390)
"""A desk's window and a telephone's, in CSS pixels."""


def faults(page: Page) -> list[str]:
    """Grave faults of the page as it is shown: rule, and the element with what is wrong."""
    from axe_playwright_python.sync_playwright import Axe

    if not page.evaluate("typeof axe === 'object'"):  # the script once a page, for both widths
        page.evaluate(Axe().axe_script)
    options = {"resultTypes": ["violations"]}
    found: list[dict[str, Any]] = page.evaluate("(options) => axe.run(options)", options)[
        "violations"
    ]
    return [
        f"{fault['id']} ({fault['impact']}): {node['html'][:160]}: {node['failureSummary']}"
        for fault in found
        if fault["impact"] in GRAVE
        for node in fault["nodes"]
    ]


def complaints(page: Page, name: str) -> list[str]:
    """At both widths: grave faults, not just one h1, or something wider than the window."""
    found: list[str] = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        shot(page, f"{name}-{width}")
        own = faults(page)
        if (headings := page.locator("h1").count()) != 1:
            own.append(f"{headings} h1")
        if (wide := page.evaluate("document.documentElement.scrollWidth")) > width:
            own.append(f"{wide} px wide")
        found += [f"{name} at {width} px: {fault}" for fault in own]
    return found


def shot(page: Page, name: str) -> None:
    """Keep a picture of the page where somebody looks at it."""
    import os

    if folder := os.environ.get("CIRFLOW_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
