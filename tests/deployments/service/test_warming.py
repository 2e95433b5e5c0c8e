"""What a search needs is there before it comes; a failure leaves it to the search."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tasks.settings import Profile

HERE = "http://127.0.0.1:8600"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def served(profile: Profile, warm: bool) -> Any:
    """A client of a service that has started, and whose warming has ended."""
    from fastapi.testclient import TestClient

    from deployments.service.app import create_app
    from deployments.service.settings import ServiceSettings

    client = TestClient(create_app(ServiceSettings(profile, warm=warm)), HERE)
    client.__enter__()
    for thread in threading.enumerate():
        if thread.name == "warming":
            thread.join(60)
    return client


def test_the_first_search_loads_and_opens_nothing(
    profile: Profile, drawn: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from deployments.service.client import Client
    from tasks import engines

    monkeypatch.setattr("deployments.service.state.FRESH_S", 600.0)
    loads = engines.load_encoder, engines.load_captioner, engines.load_generator
    for load in (*loads, engines.load_mapping):
        load.cache_clear()
    http = served(profile, warm=True)
    try:
        assert http.get("/v1/health").json()["warm"] == "ready"
        counts = [load.cache_info().misses for load in loads]
        assert counts == [1, 1, 1]

        def refuse(*given: object) -> None:
            raise AssertionError("made by the first search")

        monkeypatch.setattr("models.retrieval.apart.own_products", refuse)
        monkeypatch.setattr("tasks.galleries.mapped", refuse)
        client = Client(http=http)
        image_id = client.upload(drawn[0].read_bytes()).image_id
        weights = {"query": {"fine_grained": 0.9}, "gallery": {"captions": 0.9}}
        assert client.search("drawn", "in red", image_id=image_id, method="cvsi").hits
        moved = client.search("drawn", "in red", image_id=image_id, method="cvsi", weights=weights)
        assert moved.hits
        assert [load.cache_info().misses for load in loads] == counts
    finally:
        http.__exit__(None, None, None)


def test_a_failure_is_said_and_searches_go_on(
    profile: Profile, drawn: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from deployments.service.client import Client

    def fails(*given: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr("tasks.warming.warm_gallery", fails)
    http = served(profile, warm=True)
    try:
        assert http.get("/v1/health").json()["warm"] == "failed"
        client = Client(http=http)
        image_id = client.upload(drawn[0].read_bytes()).image_id
        assert client.search("drawn", "in red", image_id=image_id, method="image-only").hits
    finally:
        http.__exit__(None, None, None)


def test_it_can_be_left_out(profile: Profile) -> None:
    http = served(profile, warm=False)
    try:
        assert http.get("/v1/health").json()["warm"] == "off"
    finally:
        http.__exit__(None, None, None)


def test_all_that_a_search_imports_is_warmed() -> None:
    script = (
        "import sys; from tasks.warming import warm_code; warm_code();"
        "from tasks import search_gallery;"
        "import ast; tree = ast.parse(open(search_gallery.__file__).read());"
        "late = [own for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)"
        "        for own in ast.walk(each) if isinstance(own, ast.ImportFrom)];"
        "assert late; print(sorted({each.module for each in late} - set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (said.stdout, said.stderr) == ("[]\n", "")
