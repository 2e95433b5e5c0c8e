"""A download is refused in words where the hub does not answer; the client tries for minutes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from models import checkpoints
from models.checkpoints import UnusableCheckpoint, identity_or_load
from models.encoders.backbone_files import EncoderNotFound, weights_file
from models.encoders.facts import encoder_is_here
from models.encoders.spec import EncoderSpec
from models.generators.transformers import TransformersSettings
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


def snapshot(cache: Path, *names: str) -> Path:
    """Some files of `some/model`, as the hub's client keeps them."""
    folder = cache / "models--some--model" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (cache / "models--some--model" / "refs").mkdir()
    (cache / "models--some--model" / "refs" / "main").write_text("abc")
    write(folder, *names)
    return folder


def write(folder: Path, *names: str) -> None:
    """Small files of a language model."""
    for name in names:
        (folder / name).write_text('{"architectures": ["OneForCausalLM"]}')


def test_files_are_looked_for_by_name_and_the_hub_where_they_lack(
    closed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TransformersSettings(model="some/model")
    with pytest.raises(UnusableCheckpoint, match="hf download some/model"):
        settings.is_here()
    folder = snapshot(tmp_path, "config.json", "model.safetensors")
    with pytest.raises(UnusableCheckpoint, match=r"lacks tokenizer\.json or"):
        settings.is_here()
    monkeypatch.setattr(checkpoints, "hub_fault", lambda: "")
    assert not settings.is_here()  # its loader fetches the rest
    (folder / "tokenizer.json").write_text("{}")
    assert settings.is_here()
    adapted = settings.changed(adapter=str(tmp_path))
    with pytest.raises(UnusableCheckpoint, match=r"lacks adapter_config\.json"):
        adapted.is_here()
    (folder / "config.json").write_text('{"architectures": ["OneForSpeech"]}')
    with pytest.raises(UnusableCheckpoint, match="OneForSpeech, and this engine takes"):
        settings.is_here()


def test_of_a_checkpoint_that_was_fetched_in_part_the_rest_is_fetched(
    online: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "hub_fault", lambda: "")
    folder = snapshot(tmp_path, "config.json")

    def fetch() -> None:
        write(folder, "model.safetensors", "tokenizer.json")

    names = {"config.json", "model.safetensors", "tokenizer.json"}
    assert identity_or_load("some/model", None, fetch).keys() == names
    for absent in names - {"config.json"}:
        (folder / absent).unlink()
        assert TransformersSettings(model="some/model").files(fetch).keys() == names


def test_a_loader_refuses_what_is_nowhere_before_its_library_asks(closed: str) -> None:
    from transformers import AutoModelForCausalLM

    from models.loaded_weights import load_model

    with pytest.raises(UnusableCheckpoint, match="hf download some/model"):
        load_model(AutoModelForCausalLM, "some/model")


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
    with pytest.raises(EncoderNotFound, match=f"{closed} cannot be reached.*hf download"):
        encoder_is_here(spec)


def test_a_repository_of_a_backbone_lacks_its_configuration(closed: str, tmp_path: Path) -> None:
    snapshot(tmp_path, "open_clip_model.safetensors")
    with pytest.raises(EncoderNotFound, match=r"no readable open_clip_config\.json.*hf download"):
        encoder_is_here(EncoderSpec(name="hf-hub:some/model"))


def test_any_answer_is_the_hubs_own_matter(online: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Absent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        assert hub_fault() == ""
        server.shutdown()


class Knowing(Absent):
    """A hub that says what it has not, as the real one does."""

    def do_GET(self) -> None:
        """Answer."""
        code = "RepoNotFound" if "/none" in self.path else "GatedRepo"
        code = "RevisionNotFound" if "/revision/" in self.path else code
        self.send_response(403 if code == "GatedRepo" else 404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.mark.parametrize(
    ("model", "revision", "message"),
    [
        ("some/none", "", "the hub has no 'some/none'.* ORGANISATION/NAME"),
        ("some/model", "v9", "'some/model' has no revision 'v9'.* a tag or a"),
        ("some/model", "", "'some/model' is given to those alone who asked.*log in here"),
    ],
)
def test_what_the_hub_has_not_is_refused_before_a_loader_asks(
    online: None, monkeypatch: pytest.MonkeyPatch, model: str, revision: str, message: str
) -> None:
    def load() -> object:
        raise AssertionError("the hub's client was asked")

    with HTTPServer(("127.0.0.1", 0), Knowing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        with pytest.raises(UnusableCheckpoint, match=message):
            TransformersSettings(model=model, revision=revision).is_here()
        with pytest.raises(UnusableCheckpoint, match=message):
            identity_or_load(model, revision, load)
        if not revision:
            with pytest.raises(EncoderNotFound, match=message):
                weights_file(EncoderSpec(name=f"hf-hub:{model}"))
        server.shutdown()


class Gated(Absent):
    """A hub that describes a checkpoint, which it gives to those alone who asked for it."""

    def do_GET(self) -> None:
        """Answer."""
        content = b'{"id": "some/model", "gated": "auto", "siblings": []}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def test_a_gated_checkpoint_needs_a_token_that_a_mirror_may_have(
    online: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    with HTTPServer(("127.0.0.1", 0), Gated) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        with pytest.raises(UnusableCheckpoint, match=r"those alone who asked for it.*log in"):
            TransformersSettings(model="some/model").is_here()
        monkeypatch.setenv("HF_ENDPOINT", address)
        assert not TransformersSettings(model="some/model").is_here()
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


def test_the_hub_is_asked_once_about_each_checkpoint(
    closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.profiles import resolve_profile
    from flows.requests.checks import require_methods
    from models.encoders import backbone_files

    asked: list[str] = []
    for module in (checkpoints, backbone_files):
        monkeypatch.setattr(module, "require_hub", lambda name, revision="": asked.append(name))
    settings = {"encoder.name": "ViT-B-32", "encoder.pretrained": "openai"}
    profile = resolve_profile("tiny", {**settings, "captioner.model": "some/captioner"})
    require_methods(profile, ["image-only", "captioning", "image-text-sum"], ["cirr", "circo"])
    assert asked.count("timm/vit_base_patch32_clip_224.openai") == 1
    assert asked.count("some/captioner") <= 2  # by the name of its setting, and by its stages
