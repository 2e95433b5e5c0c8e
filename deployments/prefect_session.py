"""Prefect's settings for one command, set before Prefect is imported.

A server that is configured (PREFECT_API_URL or a Prefect profile) is used. Otherwise Prefect starts
a temporary one, which takes a while on small machines: it gets time, and the user is told.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}
"""No telemetry and no advertising, wherever Prefect runs."""

# Stages report their own failures, once each; Prefect would print every traceback twice.
DEFAULTS = {
    **QUIET,
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
}


def configure_prefect(home: Path | None = None) -> None:
    """Set Prefect's variables that are not set yet. Call it before anything imports Prefect.

    Args:
        home: Prefect's own folder for this command; None keeps the user's.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if home is not None and "PREFECT_API_URL" not in os.environ:
        home.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("PREFECT_HOME", str(home))


@contextmanager
def prefect_session(home: Path | None = None) -> Iterator[float]:
    """Configure Prefect and bring its API up; yields the seconds that took.

    Args:
        home: as `configure_prefect`.
    """
    configure_prefect(home)
    from deployments.display import console

    started = time.monotonic()
    with console.status("starting Prefect (its temporary server takes up to a minute)"):
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            client.hello()
    _quiet_shutdown()
    yield time.monotonic() - started


def _quiet_shutdown() -> None:
    """Keep the temporary server's last messages (cancelled tasks) off the terminal."""
    for name in ("prefect.server", "prefect._internal", "prefect.events"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
