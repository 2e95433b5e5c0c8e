"""The routers of the service: one line each, in the order of the navigation.

A router is a module in `deployments/service/routes` with `router`, an `APIRouter`. Its pages are
made by `page` (`deployments/service/pages.py`) of a template that extends `base.html`; its answers
raise `Refusal` (`deployments/service/errors.py`). It finds what it needs in `Serving`
(`deployments/service/state.py`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from fastapi import APIRouter


class Entry(NamedTuple):
    """A router: its module in `routes`, and the page that the navigation shows of it, if any."""

    module: str
    title: str = ""
    path: str = ""


ROUTERS: Final = (
    Entry("search_page", "Search", "/"),
    Entry("search_api"),
    Entry("explorer", "Benchmarks", "/benchmarks"),
    Entry("browser", "Pictures", "/pictures"),
    Entry("reports", "Reports", "/reports"),
    Entry("images"),
    Entry("about"),
    Entry("progress", "Progress", "/progress"),
    Entry("api_page"),
)


def routers() -> list[APIRouter]:
    """All of them, imported."""
    package = "deployments.service.routes"
    return [importlib.import_module(f"{package}.{each.module}").router for each in ROUTERS]


def navigation() -> list[Entry]:
    """Those that have a page in the navigation."""
    return [each for each in ROUTERS if each.title]
