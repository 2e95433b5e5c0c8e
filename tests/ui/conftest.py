"""A stack with something in it, and a browser in front of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from deployments.stack.settings import StackSettings
from deployments.stack.stack import start_server, stop
from tests.fakes.live_stack import LiveStack
from tests.fakes.postgres import free_port
from tests.ui.team_stack import team_stack

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
REQUIRED = "CIRFLOW_REQUIRE_BROWSER"
"""Where this is set, a machine without Chromium fails the tests that want one."""
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
"""Root in a container has no sandbox; nothing but the loopback server is to be asked."""
PATIENCE_MS = 180_000
"""Longest wait for anything on a page but the end of a run."""


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's executable."""
    for name in BROWSERS:
        if found := shutil.which(name):
            return found
    lacking = (
        f"no browser: none of {', '.join(BROWSERS)} is installed "
        "(Debian: apt-get install --no-install-recommends chromium)"
    )
    if os.environ.get(REQUIRED):
        pytest.fail(f"{lacking}, and {REQUIRED} is set")
    pytest.skip(lacking)


@pytest.fixture(scope="module")
def stack(
    chromium: str,
    repository: Path,
    migrated_database: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[LiveStack]:
    """A team's stack: a benchmark that was evaluated, and photographs that have captions."""
    with team_stack(tmp_path_factory.mktemp("home"), repository, migrated_database) as made:
        yield made


@pytest.fixture
def page(stack: LiveStack, window: Page) -> Page:
    """A browser's window whose user has followed the link of `cirflow up`."""
    window.goto(stack.settings.sign_in_link())
    window.wait_for_url(f"{stack.settings.url}/deployments")
    return window


REBOUND = "rebound.test"
"""A name that the browser finds at this machine, as after DNS rebinding."""
NO_HELP = "--disable-features=LocalNetworkAccessChecks,BlockInsecurePrivateNetworkRequests"
"""Newer browsers ask before a page reaches loopback; the server must do without."""


@pytest.fixture
def window(chromium: str, tmp_path: Path) -> Iterator[Page]:
    """An empty browser's window; what it shows at the end is kept in `tmp_path`/last.png."""
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "browser",
            executable_path=chromium,
            args=[*QUIET, f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1", NO_HELP],
            viewport={"width": 1400, "height": 1000},
        )
        context.set_default_timeout(PATIENCE_MS)
        shown = context.pages[0]
        try:
            yield shown
        finally:
            shown.screenshot(path=tmp_path / "last.png")
            context.close()


@pytest.fixture(scope="module")
def server(
    migrated_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StackSettings]:
    """A server as `cirflow up` starts it, without workers."""
    stack = StackSettings(tmp_path_factory.mktemp("home"), port=free_port())
    stack.home.mkdir(parents=True)
    shutil.copyfile(migrated_database, stack.home / "prefect.db")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("PREFECT_")]:
            patch.delenv(name)
        try:
            start_server(stack, print)
            yield stack
        finally:
            stop(stack, print)
