"""A browser filters the explorer to queries that one method wins, and opens a report over http."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.postgres import free_port
from tests.fakes.ranked_world import CAPTION, RankedWorld, ranked_world
from tests.ui.axe import complaints

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def world(chromium: str, tmp_path_factory: pytest.TempPathFactory) -> RankedWorld:
    return ranked_world(tmp_path_factory.mktemp("ranked"))


@pytest.fixture(scope="module")
def address(world: RankedWorld) -> Iterator[str]:
    """A running service."""
    import uvicorn

    from deployments.service.app import create_app
    from deployments.service.settings import ServiceSettings

    port = free_port()
    app = create_app(ServiceSettings(world.profile, port=port))
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def test_from_the_list_to_queries_that_one_method_wins_and_to_the_report(
    address: str, window: Page, world: RankedWorld, tmp_path: Path
) -> None:
    from playwright.sync_api import expect

    faults: list[str] = []
    window.on("console", lambda message: faults.append(message.text) if _bad(message) else None)
    window.goto(f"{address}/benchmarks")
    window.get_by_role("link", name="CIRR, val").click()
    window.wait_for_url("**/benchmarks/**")  # a choice is sent by a script that comes with the page
    window.get_by_label("Method", exact=True).select_option("cvsi")
    window.wait_for_url("**method=cvsi**")
    window.get_by_label("Against").select_option("ldre")
    window.wait_for_url("**against=ldre**")
    window.get_by_label("Right within rank").select_option("1")
    window.wait_for_url("**k=1&**")
    window.get_by_role("link", name="CVSI right, LDRE wrong").click()
    expect(window.get_by_role("status")).to_contain_text("2 of 12 queries")
    strips = window.locator("article.strip")
    expect(strips).to_have_count(2)
    for row in range(2):
        ranks = strips.nth(row).locator(".answer .badge").all_inner_texts()
        assert ranks[0] == "rank 1"
        assert ranks[1] in ("rank 2", "rank 3")
    window.get_by_text("Captions, edits and objects of CVSI").first.click()
    expect(window.get_by_text(CAPTION).first).to_be_visible()
    window.locator(".hits a.zoom").first.click()
    expect(window.locator("dialog.large img")).to_be_visible()
    window.keyboard.press("Escape")

    found = window.url  # a deep link: another window shows the same
    window.set_viewport_size({"width": 390, "height": 900})
    window.goto(found)
    expect(strips).to_have_count(2)
    assert window.evaluate("document.documentElement.scrollWidth") <= 390

    window.set_viewport_size({"width": 1400, "height": 1000})
    with window.expect_download() as started:
        window.get_by_role("link", name="CSV").click()
    started.value.save_as(tmp_path / "queries.csv")
    assert len((tmp_path / "queries.csv").read_text().splitlines()) == 3

    window.get_by_role("link", name="report", exact=True).click()
    expect(window.get_by_role("heading", level=1)).to_have_text("Ranked by hand")
    window.locator(".strip img").first.click()
    expect(window.locator("dialog.large img")).to_be_visible()
    window.keyboard.press("Escape")
    filters = window.get_by_role("group", name="Filter by method")
    filters.get_by_role("button", name="LDRE").click()
    shown = window.locator(".strip:visible .method").all_inner_texts()
    assert set(shown) == {"LDRE"}
    assert not faults


PAGES = {
    "benchmarks": "/benchmarks",
    "explorer": "/benchmarks/{key}?method=cvsi&against=ldre&k=1&outcome=won",
    "query": "/benchmarks/{key}/query?query=0",
    "collections": "/pictures",
    "pictures": "/pictures/{gallery}",
    "galleries": "/progress",
    "progress": "/progress/{gallery}",
    "reports": "/reports",
    "report": "/reports/{report}/report.html",
    "api": "/docs",
    "missing": "/nothing",
}
"""Pages of the service, all but the search page."""


def test_every_page_reads_well(address: str, window: Page, world: RankedWorld) -> None:
    from storage.collections.known import list_collections
    from storage.locations.location import Location
    from tasks.explorer.evaluations import folder_key

    report = folder_key(world.report.parent)
    (gallery,) = list_collections(Location(world.profile.root))
    found: list[str] = []
    for name, path in PAGES.items():
        window.goto(address + path.format(key=world.key, gallery=gallery, report=report))
        found += complaints(window, name)
    assert not found, "\n".join(found)


def _bad(message: object) -> bool:
    return getattr(message, "type", "") == "error"
