"""Who may ask the service, and how it refuses."""

from __future__ import annotations

import asyncio
import base64
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deployments.cli import main
from deployments.errors import UserError

if TYPE_CHECKING:
    import httpx

    from deployments.service.settings import ServiceSettings

TOKEN = "a-secret-of-this-test"
HERE = "http://127.0.0.1:8600"


def settings(root: Path, **given: Any) -> ServiceSettings:
    from deployments.service.settings import ServiceSettings
    from flows.profiles import resolve_profile

    return ServiceSettings(resolve_profile("tiny", {"root": str(root)}), **given)


def ask(
    own: ServiceSettings, path: str, base: str = HERE, method: str = "GET", **given: Any
) -> httpx.Response:
    import httpx

    from deployments.service.app import create_app

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(own), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            return await client.request(method, path, **given)

    return asyncio.run(asked())


def test_only_exact_names_are_answered(tmp_path: Path) -> None:
    own = settings(tmp_path)
    assert ask(own, "/v1/health").json()["status"] == "ok"
    for base in ("http://evil.test:8600", "http://127.0.0.1:8601", "http://127.0.0.1"):
        assert ask(own, "/v1/health", base).status_code == 403
    assert ask(own, "/docs", headers={"origin": "http://evil.test"}).status_code == 403


def test_a_token_is_asked_for_where_others_reach_it(tmp_path: Path) -> None:
    for given in ({"host": "0.0.0.0"}, {"origin": "https://a.test"}, {"names": ("a:1",)}):
        with pytest.raises(UserError, match="CIRFLOW_SERVICE_TOKEN"):
            settings(tmp_path, **given).check()
    with pytest.raises(UserError, match=r"all addresses .*\(--name NAME:PORT"):
        settings(tmp_path, host="0.0.0.0", token=TOKEN).check()
    settings(tmp_path, host="0.0.0.0", names=("a.test:8600",), token=TOKEN).check()
    settings(tmp_path, host="::", origin="https://a.test", token=TOKEN).check()
    with pytest.raises(UserError, match="5 characters"):
        settings(tmp_path, token="short").check()
    own = settings(tmp_path, token=TOKEN)
    refused = ask(own, "/metrics")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic")
    assert refused.json()["error"]["request_id"] == refused.headers["x-request-id"]
    basic = base64.b64encode(f"anybody:{TOKEN}".encode()).decode()
    for good in (f"Bearer {TOKEN}", f"Basic {basic}"):
        assert ask(own, "/metrics", headers={"authorization": good}).status_code == 200
    for bad in (f"Bearer {TOKEN}x", "Bearer ", "Basic %%%", TOKEN):
        assert ask(own, "/metrics", headers={"authorization": bad}).status_code == 401


def test_refusals_have_one_form(tmp_path: Path) -> None:
    own = settings(tmp_path)
    body = ask(own, "/v1/nothing").json()["error"]
    assert body["code"] == "not_found"
    page = ask(own, "/nothing", headers={"accept": "text/html"})
    assert page.status_code == 404
    assert "<h1>Not found</h1>" in page.text


def test_an_address_that_is_unknown_or_asked_wrongly_names_the_right_ones(tmp_path: Path) -> None:
    own = settings(tmp_path)
    page = ask(own, "/benchmark<i>", headers={"accept": "text/html"})
    assert "unknown address &#39;/benchmark&lt;i&gt;&#39;; did you mean" in page.text
    assert "known: /, /benchmarks, /pictures, /reports, /progress, /docs" in page.text
    said = ask(own, "/v1/serach").json()["error"]["message"]
    assert said.startswith("unknown address '/v1/serach'; did you mean '/v1/search'? known: /v1/")
    assert ", /v1/galleries, " in said
    wrong = ask(own, "/v1/search")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.json()["error"]["message"] == "GET is not allowed at /v1/search; allowed: POST"


def test_head_is_answered_as_get_without_a_body(tmp_path: Path) -> None:
    own = settings(tmp_path)
    for path, status in (("/v1/health", 200), ("/docs", 200), ("/nothing", 404)):
        head = ask(own, path, method="HEAD")
        assert (head.status_code, head.content) == (status, b"")
        assert int(head.headers["content-length"]) > 0
    missing = ask(own, "/pictures/x")
    assert (missing.status_code, "known: none yet" in missing.text) == (404, True)


def test_a_large_body_is_refused_by_its_announced_length(tmp_path: Path) -> None:
    from dataclasses import replace

    own = settings(tmp_path)
    own = replace(own, limits=replace(own.limits, body_bytes=1000))
    announced = ask(own, "/v1/health", method="POST", content=b"x" * 1001)
    assert (announced.status_code, announced.json()["error"]["code"]) == (413, "too_large")
    lying = ask(own, "/v1/health", method="POST", headers={"content-length": "-5"})
    assert lying.status_code == 413


def test_bodies_that_stall_are_refused_and_hold_a_bounded_memory() -> None:
    """Each client sends the greater part of a body and then nothing; the last ones too much."""
    from deployments.service.entrance import BODIES, Entrance
    from deployments.service.metrics import Metrics
    from tasks.kept_searches import Kept

    size = 1000
    answered: list[tuple[int, str]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            more = (await receive()).get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def client(entrance: Entrance, stalls: bool) -> None:
        sent = [{"type": "http.request", "body": b"x" * size, "more_body": stalls}]

        async def receive() -> dict[str, Any]:
            if not sent:
                await asyncio.Event().wait()  # for ever
            return sent.pop()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answered.append((message["status"], ""))
            else:  # nothing else is sent between the two
                answered[-1] = (answered[-1][0], message["body"].decode())

        scope = {"type": "http", "method": "POST", "path": "/v1/uploads", "headers": []}
        await entrance(scope, receive, send)

    async def all_of_them() -> None:
        entrance = Entrance(app, Metrics(Kept()), "", size, body_s=0.2)
        await asyncio.gather(*(client(entrance, stalls=True) for _ in range(BODIES + 2)))
        await client(entrance, stalls=False)  # what was held is free again

    asyncio.run(all_of_them())
    assert [status for status, _ in answered] == [503, 503, *[408] * BODIES, 200]
    assert '"code": "busy"' in answered[0][1]
    assert '"code": "too_slow"' in answered[2][1]


def test_measures_count_by_route(tmp_path: Path) -> None:
    import httpx

    from deployments.service.app import create_app

    async def asked() -> str:
        transport = httpx.ASGITransport(create_app(settings(tmp_path)))
        async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
            for _ in range(3):
                await client.get("/v1/health")
            return (await client.get("/metrics")).text

    assert 'cirflow_requests_total{route="/v1/health",status="200"} 3.0' in asyncio.run(asked())


def test_the_api_page_shows_every_operation(tmp_path: Path) -> None:
    own = settings(tmp_path)
    described = ask(own, "/openapi.json").json()["paths"]
    page = ask(own, "/docs").text
    assert described
    assert all(path in page for path in described)
    assert "http://" not in page.replace(HERE, "")  # nothing is loaded from elsewhere
    assert "script-src 'self'" in ask(own, "/docs").headers["content-security-policy"]


def test_serve_refuses_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CIRFLOW_SERVICE_TOKEN", raising=False)
    for given, said in (
        (["--host=0.0.0.0"], "CIRFLOW_SERVICE_TOKEN"),
        (["--port=0"], "1 to 65535"),
        (["--port=99999"], "1 to 65535"),
        (["--port=-1"], "1 to 65535"),
        (["--name=abc"], "NAME:PORT"),
    ):
        assert main(["serve", f"--root={tmp_path}", *given]) == 2
        assert said in capsys.readouterr().err
    assert main(["try", str(tmp_path), "--port=99999"]) == 2
    assert "1 to 65535" in capsys.readouterr().err
    assert main(["serve", f"--root={tmp_path / 'none'}", "--port=0"]) == 2
    assert "is not there yet" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["serve", f"--root={tmp_path / 'file'}"]) == 2
    assert "is not a folder" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="it is about glibc")
def test_memory_of_large_pictures_is_given_back_by_every_thread() -> None:
    script = """
import psutil
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from PIL import Image
from deployments.service.memory import give_back_large_blocks
give_back_large_blocks()
together, kept = Barrier(6), []
def decode(_):
    for _ in range(2):
        together.wait()
        seen = Image.new("RGBA", (3000, 3000), "red")
        Image.alpha_composite(seen, seen).convert("RGB")
        kept.append(bytes(100_000))  # as an answer that outlives the picture
held = lambda: psutil.Process().memory_info().rss / 2**20
before = held()
with ThreadPoolExecutor(6) as pool:
    list(pool.map(decode, range(6)))
    print(held() - before)
"""
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert said.stderr == ""
    assert float(said.stdout) < 100  # MiB; 308 where freed blocks stay with their threads
