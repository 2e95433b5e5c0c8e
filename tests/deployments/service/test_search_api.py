"""The API gives what `cirflow search` gives, refuses what it must, and holds under load."""

from __future__ import annotations

import asyncio
import base64
import io
import struct
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.deployments.service.conftest import IMAGES

if TYPE_CHECKING:
    from fastapi import FastAPI

    from deployments.service.client import Client
    from tasks.settings import Profile

HERE = "http://127.0.0.1:8600"
TEXT = "change the background to black"


@pytest.fixture(scope="module")
def app(profile: Profile) -> FastAPI:
    """One warm service for all tests of this file."""
    from deployments.service.app import create_app
    from deployments.service.settings import ServiceSettings

    return create_app(ServiceSettings(profile))


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[Client]:
    from fastapi.testclient import TestClient

    from deployments.service.client import Client

    with Client(http=TestClient(app, HERE, raise_server_exceptions=False)) as made:
        yield made


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thumbnails of these tests stay among their files."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


def naive(profile: Profile, image: bytes, method: str, **given: Any) -> Any:
    """What a search without anything kept finds: the way of `cirflow search`."""
    from tasks.planner import gallery_stages
    from tasks.search_gallery import search_gallery

    stages = gallery_stages(profile, "drawn", method)
    return search_gallery(profile, "drawn", stages, image, TEXT, method=method, **given)


@pytest.mark.parametrize("method", ["cvsi", "lincir", "image-text-sum"])
def test_scores_are_those_of_cirflow_search(
    client: Client, profile: Profile, drawn: list[Path], method: str
) -> None:
    image = drawn[2].read_bytes()
    expected = naive(profile, image, method, k=5)
    kept = client.upload(image)
    inline = base64.b64encode(image).decode()
    for reference in ({"image_id": kept.image_id}, {"image_base64": inline}):
        for _ in range(2):  # made, and kept from before
            found = client.search("drawn", TEXT, method=method, k=5, **reference)
            assert [hit.image_id for hit in found.hits] == [h.image_id for h in expected.hits]
            assert [hit.score for hit in found.hits] == [h.score for h in expected.hits]
            assert [hit.paths for hit in found.hits] == [list(h.paths) for h in expected.hits]
            assert found.texts.captions == list(expected.captions)
            assert found.gallery_size == IMAGES
    for hit in found.hits:
        for side in (hit.contributions.query, hit.contributions.gallery):
            assert sum(side.values()) == pytest.approx(hit.score, abs=1e-5)


def test_moved_weights_rank_again_without_a_model(
    client: Client, profile: Profile, drawn: list[Path]
) -> None:
    """Only the gallery's images count: CVSI's order is then the order by its query alone."""
    import numpy as np
    import polars as pl

    kept = client.upload(drawn[4].read_bytes())
    asked = {"image_id": kept.image_id, "k": IMAGES}
    usual = client.search("drawn", TEXT, **asked)
    metrics = client._http.get("/metrics").text
    weights = {
        "query": {"edited_captions": 0.0, "fine_grained": 1.0},
        "gallery": {"captions": 0.0, "image": 1.0},
    }
    moved = client.search("drawn", TEXT, weights=weights, **asked)

    def made(text: str) -> str:
        return next(line for line in text.splitlines() if line.startswith("cirflow_query_values_m"))

    assert made(client._http.get("/metrics").text) == made(metrics)
    alone = client.search("drawn", TEXT, **asked)
    assert alone.hits == usual.hits  # moved weights change nothing for the next search
    assert set(moved.hits[0].contributions.query) == {"fine_grained"}
    scores = [hit.score for hit in moved.hits]
    assert scores == sorted(scores, reverse=True)
    assert scores != [hit.score for hit in usual.hits]
    # The terms of the usual search tell the moved one: t is the image's own unit vector now.
    from tasks.kept_searches import Kept
    from tasks.planner import gallery_stages, query_stages
    from tasks.query_encodings import query_features
    from tasks.query_sets import OneQuery
    from tasks.stages.decoded import OnePicture

    data = drawn[4].read_bytes()
    query = OneQuery(image_id=kept.image_id, text=TEXT)
    stages = query_stages(profile, query, "drawn", "cvsi", "circo")
    features, _ = query_features(stages, query, OnePicture(data, profile.pictures), Kept())
    vector = features["fine_grained"][0].astype(np.float64)
    vector /= np.linalg.norm(vector)
    stage = gallery_stages(profile, "drawn")["image"]
    rows = pl.read_parquet(f"{profile.root}/{stage.table().folder}/part-*.parquet")
    for hit in moved.hits:
        image = rows.filter(pl.col("image_id") == hit.image_id)["vector"].to_numpy()[0]
        image = image.astype(np.float64)
        assert hit.score == pytest.approx(vector @ image / np.linalg.norm(image), abs=1e-3)


def test_a_hit_is_the_next_reference_and_a_batch_is_its_searches(
    client: Client, drawn: list[Path]
) -> None:
    from deployments.service.records import SearchRequest

    first = client.search(
        "drawn", TEXT, image_id=client.upload(drawn[0].read_bytes()).image_id, method="image-only"
    )
    hit = first.hits[0]
    again = client.search("drawn", TEXT, image_id=hit.image_id, method="image-only")
    assert hit.image_id not in [each.image_id for each in again.hits]
    searches = [
        SearchRequest(gallery="drawn", text=TEXT, image_id=own, method="image-only")
        for own in (first.image_id, hit.image_id)
    ]
    assert [each.hits for each in client.batch(searches)] == [first.hits, again.hits]


def test_pictures_and_their_facts(client: Client, drawn: list[Path]) -> None:
    from PIL import Image

    (ready,) = [each for each in client.galleries() if each.name == "drawn"]
    assert (ready.images, ready.warning) == (IMAGES, "")
    assert {"cvsi", "lincir"} <= set(ready.methods)
    (bare,) = [each for each in client.galleries() if each.name == "bare"]
    assert (bare.images, bare.methods) == (1, [])
    methods = {each.name: each for each in client.methods()}
    assert methods["cvsi"].movable
    assert not methods["ldre"].movable
    hit = client.search(
        "drawn", TEXT, image_id=client.upload(drawn[1].read_bytes()).image_id, k=1
    ).hits[0]
    original = client.image(hit.image_id)
    assert original == Path(hit.paths[0]).read_bytes()
    small = Image.open(io.BytesIO(client.image(hit.image_id, side=160)))
    assert small.format == "JPEG"
    assert max(small.size) <= 160
    assert client._http.get(f"{hit.thumbnail}?side=161").status_code == 422
    about = client.about(hit.image_id, "drawn")
    assert about.paths == hit.paths
    assert len(about.captions) == 2
    assert client._http.get(hit.image).headers["content-security-policy"].endswith("sandbox")


def bomb(side: int) -> bytes:
    """A PNG whose header claims side x side pixels, in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (bomb(30_000), "too_many_pixels"),
        (bomb(7_000), "too_many_pixels"),
        (b"", "empty_file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not_an_image"),
        (b"GIF89a", "not_an_image"),
        (bomb(10), "decode_error"),
    ],
)
def test_what_is_not_a_picture_is_refused(client: Client, data: bytes, said: str) -> None:
    from deployments.service.client import Refused

    with pytest.raises(Refused) as refused:
        client.upload(data)
    assert (refused.value.status, refused.value.code) == (422, "not_a_picture")
    assert said in str(refused.value)
    if data:
        with pytest.raises(Refused) as refused:
            client.search("drawn", TEXT, image_base64=base64.b64encode(data).decode())
        assert refused.value.code == "not_a_picture"


def test_a_body_beyond_the_limit_is_not_read_whole(app: FastAPI) -> None:
    import httpx

    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 2**20
            yield b"x" * 2**20

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=HERE) as client:
            announced = await client.post(
                "/v1/uploads", content=b"", headers={"content-length": str(100 * 2**20)}
            )
            assert (announced.status_code, announced.json()["error"]["code"]) == (413, "too_large")
            return await client.post("/v1/uploads", content=pieces())

    answer = asyncio.run(asked())
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")
    assert sent <= 34 * 2**20


GOOD = "0" * 64
REFUSED = [
    ({"gallery": "nowhere"}, 404, "unknown_gallery"),
    ({"gallery": "../../etc/passwd"}, 422, "invalid"),
    ({"gallery": "drawn\0"}, 422, "invalid"),
    ({"gallery": "bare", "method": "image-only"}, 409, "not_embedded"),
    ({"image_id": GOOD}, 404, "unknown_image"),
    ({"image_id": "../" + "0" * 61}, 422, "invalid"),
    ({"image_id": None}, 422, "invalid"),
    ({"image_base64": "AAAA"}, 422, "invalid"),
    ({"image_id": None, "image_base64": "%%"}, 422, "not_base64"),
    ({"method": "cvsy"}, 404, "unknown_method"),
    ({"method": "covr"}, 409, "method_not_ready"),
    ({"family": "cirrr"}, 422, "unknown_family"),
    ({"text": "  "}, 422, "invalid"),
    ({"text": "x" * 2001}, 422, "invalid"),
    ({"k": 0}, 422, "invalid"),
    ({"k": 201}, 422, "too_many"),
    ({"weights": {"query": {"fine": 1}}}, 422, "invalid"),
    ({"weights": {"query": {"fine_grained": 1e9}}}, 422, "invalid"),
    ({"weights": {"gallery": {"image": 0, "captions": 0}}}, 422, "invalid"),
    ({"method": "ldre", "weights": {"query": {"edited_captions": 0.5}}}, 422, "invalid"),
    ({"nonsense": 1}, 422, "invalid"),
]


@pytest.mark.parametrize(("change", "status", "code"), REFUSED, ids=str)
def test_requests_are_refused_typed(
    client: Client, drawn: list[Path], change: dict[str, Any], status: int, code: str
) -> None:
    reference = client.upload(drawn[0].read_bytes()).image_id
    asked = {"gallery": "drawn", "text": TEXT, "image_id": reference, **change}
    answer = client._http.post("/v1/search", json=asked)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["..%2f..%2fetc%2fpasswd", "A" * 64, "0" * 63, "%00" * 64])
def test_ids_are_no_paths(client: Client, path: str) -> None:
    for end in ("", "/thumbnail", "/about"):
        assert client._http.get(f"/v1/images/{path}{end}").status_code in (404, 422)
    assert client._http.get("/static/../app.py").status_code == 404
    assert client._http.get("/static/%2e%2e/app.py").status_code == 404


def test_too_many_requests_are_told_to_wait() -> None:
    from deployments.service.rate import Rate

    rate = Rate(rate=1.0, burst=3)
    assert [rate.take("a") > 0 for _ in range(4)] == [False, False, False, True]
    assert rate.take("b", 3) == 0
    assert rate.take("b", 3) > 2


def test_two_hundred_searches_at_once(app: FastAPI, client: Client, drawn: list[Path]) -> None:
    import httpx

    ids = [client.upload(path.read_bytes()).image_id for path in drawn]
    alone = {own: client.search("drawn", TEXT, image_id=own, method="image-only") for own in ids}

    async def asked() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=HERE, timeout=60) as many:
            sent = [
                {"gallery": "drawn", "text": TEXT, "image_id": own, "method": "image-only"}
                for own in (ids * 200)[:200]
            ]
            return await asyncio.gather(*(many.post("/v1/search", json=each) for each in sent))

    answers = [answer.json() for answer in asyncio.run(asked())]
    assert len({answer["image_id"] for answer in answers}) == IMAGES
    for answer in answers:
        scores = [hit["score"] for hit in answer["hits"]]
        assert scores == [hit.score for hit in alone[answer["image_id"]].hits]


def test_a_damaged_collection_hides_no_other(profile: Profile, tmp_path: Path) -> None:
    import shutil

    from fastapi.testclient import TestClient

    from deployments.service.app import create_app
    from deployments.service.settings import ServiceSettings

    root = tmp_path / "root"
    shutil.copytree(profile.root, root)
    for file in (root / "collections" / "bare.json", root / "collections" / "copies" / "bare.json"):
        file.write_text("{")
    app = create_app(ServiceSettings(profile.model_copy(update={"root": str(root)})))
    http = TestClient(app, HERE, raise_server_exceptions=False)
    found = {each["name"]: each for each in http.get("/v1/galleries").json()["galleries"]}
    assert "cirflow cache repair" in found["bare"]["fault"]
    assert found["bare"]["methods"] == []
    assert (found["drawn"]["images"], found["drawn"]["fault"]) == (IMAGES, "")
    assert "cvsi" in found["drawn"]["methods"]
    for path in ("/", "/pictures", "/progress"):
        page = http.get(path, headers={"accept": "text/html"})
        assert page.status_code == 200
        assert "drawn" in page.text
        assert "is damaged" in page.text
    said = http.get("/pictures/bare", headers={"accept": "text/html"})
    assert (said.status_code, "cirflow cache repair" in said.text) == (422, True)
    http.close()


def test_pictures_are_decoded_beside_the_event_loop_a_few_at_a_time(
    client: Client, drawn: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large picture holds up no other request, and many of them fill no memory."""
    from concurrent.futures import ThreadPoolExecutor

    from deployments.service import state
    from storage.collections.decoding import inspect_image
    from storage.collections.thumbnails import thumbnail

    at_once: set[int] = set()
    most: list[int] = []

    def watched(decode: Any) -> Any:
        def decoded(*given: Any) -> Any:
            with pytest.raises(RuntimeError, match="no running event loop"):
                asyncio.get_running_loop()
            at_once.add(own := threading.get_ident())
            most.append(len(at_once))
            made = decode(*given)
            at_once.discard(own)
            return made

        return decoded

    monkeypatch.setattr(state, "inspect_image", watched(inspect_image))
    monkeypatch.setattr(state, "thumbnail", watched(thumbnail))
    data = [file.read_bytes() for file in drawn]

    def use(image: bytes) -> None:
        image_id = client.upload(image).image_id
        for path in ("", "/thumbnail", "/about"):
            assert client._http.get(f"/v1/images/{image_id}{path}").status_code == 200

    with ThreadPoolExecutor(len(data)) as pool:
        list(pool.map(use, data))
    assert len(most) == 4 * len(data)
    assert max(most) <= state.DECODING
