"""The search page in a browser: upload, hits, weights, two methods, the trail; and how it reads."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Page, expect

from tests.fakes.postgres import free_port
from tests.ui.axe import complaints, shot

if TYPE_CHECKING:
    from tasks.settings import Profile

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TEXT = "change the background to black"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    from tests.fakes.drawn import draw_folder

    return draw_folder(tmp_path_factory.mktemp("drawn"), 14, seed=77)


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory, pictures: list[Path]) -> Profile:
    """A root with one gallery that has every feature of CVSI."""
    from storage.collections.collection import ingest
    from storage.locations.location import Location
    from tasks.planner import gallery_stages
    from tests.fakes.drawn import small_profile
    from tests.fakes.filled_tables import fill

    own = small_profile(tmp_path_factory.mktemp("root"), captions=2, shard=7)
    ingest(Location(own.root), pictures[0].parent, "drawn")
    stages: dict[str, Any] = dict(gallery_stages(own, "drawn"))
    for stage in (stages["image"], stages["captions"].captions, stages["captions"]):
        fill(stage)
    return own


@pytest.fixture(scope="module")
def address(profile: Profile) -> Iterator[str]:
    """A running service."""
    import uvicorn

    from deployments.service.app import create_app
    from deployments.service.settings import ServiceSettings

    settings = ServiceSettings(profile, port=free_port(), chosen=("--profile", "tiny"))
    server = uvicorn.Server(
        uvicorn.Config(create_app(settings), port=settings.port, log_level="warning")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.02)
    yield settings.url
    server.should_exit = True
    thread.join()


def hits(page: Page, column: int = 0) -> list[str]:
    """Image ids of a column, best first."""
    shown = page.locator("#results > section").nth(column).locator(".picture")
    return [str(each.get_attribute("data-image")) for each in shown.all()]


def test_search_by_upload_hits_weights_two_methods_and_back(
    window: Page, address: str, pictures: list[Path], tmp_path: Path
) -> None:
    faults: list[str] = []
    window.on("pageerror", lambda error: faults.append(str(error)))
    window.on("console", lambda said: faults.append(said.text) if said.type == "error" else None)
    window.goto(address)
    expect(window.locator("#status")).to_have_text("Choose a picture to begin.")
    window.locator("#file").set_input_files(pictures[0])
    expect(window.locator("#reference")).to_be_visible()
    window.locator("#text").fill(TEXT)
    window.get_by_role("button", name="Search").click()
    expect(window.locator(".picture")).to_have_count(12)
    first = hits(window)

    # The address is the query: a link shows the same pictures.
    assert "text=change" in window.url
    window.reload()
    expect(window.locator(".picture")).to_have_count(12)
    assert hits(window) == first

    # A hit opens large, with captions and what each feature added, which sums to its score.
    card = window.locator(".picture").first
    card.get_by_role("button", name=re.compile("Enlarge")).click()
    large = window.get_by_role("dialog")
    expect(large.locator("li")).to_have_count(2)
    terms = [float(own) for own in large.locator(".bar span:last-child").all_inner_texts()]
    assert sum(terms) / 2 == pytest.approx(float(str(card.get_attribute("data-score"))), abs=0.004)
    shot(window, "large")
    large.get_by_role("button", name="Close").click()

    # Weights moved: other scores, at once, in the address.
    score = card.get_attribute("data-score")
    window.get_by_label(re.compile("gallery: captions")).fill("1")
    expect(window.locator(".picture").first).not_to_have_attribute("data-score", str(score))
    assert "gallery.captions=1" in window.url
    window.get_by_role("button", name="The method's own weights").click()
    expect(window.locator(".picture").first).to_have_attribute("data-score", str(score))

    # Two methods side by side.
    window.get_by_label("Compare with").select_option("image-only")
    expect(window.locator("#results > section")).to_have_count(2)
    assert hits(window) == first
    assert hits(window, 1) != first
    shot(window, "compared")
    window.get_by_label("Compare with").select_option("")
    expect(window.locator("#results > section")).to_have_count(1)

    # A hit as the next reference, and the trail back.
    name = window.locator(".picture .caption span").first.inner_text().partition(" ")[2]
    window.get_by_role("button", name=f"Use {name} as the reference").click()
    expect(window.locator("#trail button")).to_have_count(2)
    expect(window.locator(f'.picture[data-image="{first[0]}"]')).to_have_count(0)
    assert first[0] in window.url
    shot(window, "trail")
    window.get_by_role("button", name="Step back").click()
    expect(window.locator("#trail button")).to_have_count(0)
    expect(window.locator(".picture").first).to_have_attribute("data-image", first[0])
    window.go_back()
    expect(window.locator("#trail button")).to_have_count(2)
    window.go_forward()
    expect(window.locator("#trail button")).to_have_count(0)

    # The query as a command and as a call.
    window.get_by_text("Copy this query").click()
    command = window.locator("#as-command").inner_text()
    assert command.startswith("cirflow search --gallery drawn --image ")
    assert f"--text '{TEXT}' --method cvsi -k 12 --profile tiny" in command
    assert f"{address}/v1/search" in window.locator("#as-call").inner_text()

    # A picture that is none is refused in words.
    assert not faults
    bad = tmp_path / "notes.png"
    bad.write_text("notes")
    window.locator("#file").set_input_files(bad)
    expect(window.get_by_role("alert")).to_contain_text("not_an_image")


def test_the_page_reads_well(window: Page, address: str, pictures: list[Path]) -> None:
    """Empty, with two columns of pictures, and with one of them large."""
    window.goto(address)
    found = complaints(window, "search-empty")
    # What was typed before the picture is there is part of the query.
    window.locator("#text").fill(TEXT)
    window.locator("#file").set_input_files(pictures[3])
    expect(window.locator(".picture")).to_have_count(12)
    window.get_by_label("Compare with").select_option("lincir")
    expect(window.locator("#results > section")).to_have_count(2)
    window.get_by_text("Copy this query").click()
    found += complaints(window, "search")
    window.locator(".picture").first.get_by_role("button", name=re.compile("Enlarge")).click()
    expect(window.get_by_role("dialog").locator("li")).to_have_count(2)
    found += complaints(window, "search-large")
    assert not found, "\n".join(found)


def test_a_gallery_is_searched_by_a_picture_in_it_and_by_one_of_ones_own(
    window: Page, address: str, pictures: list[Path], tmp_path: Path
) -> None:
    window.goto(f"{address}/pictures/drawn")
    expect(window.locator(".picture")).to_have_count(14)
    expect(window.get_by_role("button", name="Close")).to_have_count(0)  # nothing is large yet
    assert not (found := complaints(window, "gallery")), "\n".join(found)
    window.get_by_role("link", name="More like 0003.png").click()
    expect(window.locator(".picture")).to_have_count(13)
    in_it = window.locator(".picture").first.inner_text()
    assert not (found := complaints(window, "alike")), "\n".join(found)
    window.get_by_role("link", name="Show all pictures").click()
    bad = tmp_path / "notes.png"
    bad.write_text("notes")
    window.locator("#upload").set_input_files(bad)
    expect(window.get_by_role("alert")).to_contain_text("The picture was not taken")
    window.locator("#upload").set_input_files(pictures[3])
    expect(window.locator(".picture")).to_have_count(13)
    assert window.locator(".picture").first.inner_text() == in_it
