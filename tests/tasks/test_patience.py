"""A run outlives a server that is being restarted: its pages wait for it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tasks.patience import while_server_restarts


class Server:
    """Stand-in for a server that cannot be reached at first."""

    def __init__(self, away: int) -> None:
        self.away = away
        self.calls: list[dict[str, Any]] = []

    def take(self, **page: Any) -> str:
        """Take a page, or be away."""
        self.calls.append(page)
        if len(self.calls) <= self.away:
            raise httpx.ConnectError("connection refused")
        return "taken"


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits are noted and take no time."""
    taken: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", taken.append)
    return taken


def test_a_page_waits_for_the_server(monkeypatch: pytest.MonkeyPatch, naps: list[float]) -> None:
    from tasks import artifacts

    server = Server(away=3)
    monkeypatch.setattr(artifacts, "create_markdown_artifact", server.take)
    artifacts.publish_markdown("key", "text", "what it is")
    assert server.calls == [{"markdown": "text", "key": "key", "description": "what it is"}] * 4
    assert len(naps) == 3
    assert all(0.0 <= nap <= 15.0 for nap in naps)


def test_patience_ends(naps: list[float]) -> None:
    server = Server(away=10**6)
    with pytest.raises(httpx.ConnectError, match="refused"):
        while_server_restarts(seconds=0.05)(server.take)


def test_a_refused_page_is_not_sent_again(naps: list[float]) -> None:
    request = httpx.Request("POST", "http://127.0.0.1/api/artifacts/")
    calls = []

    def refuse() -> None:
        calls.append(1)
        response = httpx.Response(422, request=request)
        raise httpx.HTTPStatusError("no", request=request, response=response)

    with pytest.raises(httpx.HTTPStatusError):
        while_server_restarts()(refuse)
    assert calls == [1]
