"""Progress bars in the UI: for stages that go on for a while, and never a reason to fail."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import pytest


class Server:
    """Takes bars, or is away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from flows import shown_progress

        self.told: list[float] = []
        self.away = False
        self.now = 0.0
        monkeypatch.setattr(shown_progress, "create_progress_artifact", self.create)
        monkeypatch.setattr(shown_progress, "update_progress_artifact", self.update)
        monkeypatch.setattr(shown_progress.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(shown_progress.FlowRunContext, "get", lambda: object())

    def create(self, percent: float, **described: Any) -> uuid.UUID:
        self.update(uuid.UUID(int=0), percent)
        return uuid.UUID(int=1)

    def update(self, artifact: uuid.UUID, percent: float) -> None:
        if self.away:
            raise httpx.ConnectError("away")
        self.told.append(percent)


def test_a_short_stage_leaves_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import shown_progress

    server = Server(monkeypatch)
    with shown_progress.progress_artifact("captions") as bar:
        for second in range(9):
            server.now = second
            bar.show(10.0 * second)
    assert server.told == []


def test_a_long_stage_is_told_now_and_then_and_ends_full(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import shown_progress

    server = Server(monkeypatch)
    with shown_progress.progress_artifact("captions") as bar:
        for second in range(35):
            server.now = second
            bar.show(float(second))
    assert server.told == [10.0, 20.0, 30.0, 100.0]


def test_a_server_that_is_away_fails_no_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import shown_progress

    server = Server(monkeypatch)
    with shown_progress.progress_artifact("captions") as bar:
        for second in (10, 20, 30, 40):
            server.now, server.away = second, second in (10, 30)
            bar.show(float(second))
    assert server.told == [20.0, 40.0, 100.0]
