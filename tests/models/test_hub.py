"""A download is refused in words where the hub does not answer; the client tries for minutes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from models.checkpoints import UnusableCheckpoint, identity_or_load
from models.encoders.backbone_files import EncoderNotFound, weights_file
from models.encoders.spec import EncoderSpec
from models.hub import hub_fault


class Absent(BaseHTTPRequestHandler):
    """A hub that has no page at its root."""

    def do_HEAD(self) -> None:
        """Answer."""
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))


@pytest.fixture
def closed(online: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a hub at which nothing listens."""
    with socket.socket() as held:  # bound and not listening: a connection is refused
        held.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{held.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        yield address


def test_a_checkpoint_is_refused_before_its_loader_asks(closed: str) -> None:
    def load() -> object:
        raise AssertionError("the hub's client was asked")

    with pytest.raises(UnusableCheckpoint, match="hf download some/model") as refused:
        identity_or_load("some/model", None, load)
    assert f"{closed} cannot be reached (" in str(refused.value)


def test_a_path_that_leads_nowhere_is_not_a_hub_id(closed: str, tmp_path: Path) -> None:
    with pytest.raises(UnusableCheckpoint, match=r"neither a directory \(.*/no/such/folder\)"):
        identity_or_load(f"{tmp_path}/no/such/folder", None, lambda: None)


@pytest.mark.parametrize(
    "spec",
    [
        EncoderSpec(name="ViT-B-32-quickgelu", pretrained="openai"),
        EncoderSpec(name="hf-hub:some/model"),
    ],
)
def test_a_backbone_is_refused_before_open_clip_asks(closed: str, spec: EncoderSpec) -> None:
    with pytest.raises(EncoderNotFound, match=f"{closed} cannot be reached.*hf download"):
        weights_file(spec)


def test_any_answer_is_the_hubs_own_matter(online: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Absent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        assert hub_fault() == ""
        server.shutdown()


def test_an_answer_that_is_not_http_is_left_to_the_client(
    online: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 another protocol\r\n")

        threading.Thread(target=answer, daemon=True).start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        assert hub_fault() == ""


def test_a_switch_of_the_user_is_named(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub_fault() == "HF_HUB_OFFLINE forbids downloads"


def test_a_proxy_that_python_does_not_use_is_left_to_the_client(
    closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1")
    assert hub_fault() == ""
