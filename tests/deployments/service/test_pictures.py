"""A gallery searched by a picture: order and scores are those of a naive cosine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from tasks.settings import Profile


@pytest.fixture(scope="module")
def browser(profile: Profile) -> TestClient:
    from fastapi.testclient import TestClient

    from deployments.service.app import create_app
    from deployments.service.settings import ServiceSettings

    app = create_app(ServiceSettings(profile))
    return TestClient(app, "http://127.0.0.1:8600", headers={"accept": "text/html"})


def shown(text: str) -> list[str]:
    """Ids of the pictures of a page, in its order."""
    return re.findall(r'class="zoom" href="/v1/images/([0-9a-f]{64})', text)


def test_pictures_are_ordered_by_the_cosine_of_their_features(
    browser: TestClient, profile: Profile, drawn: list[Path]
) -> None:
    import numpy as np

    from tasks.planner import gallery_stages

    rows = gallery_stages(profile, "drawn")["image"].table().read()
    ids = rows["image_id"].to_list()
    vectors = rows["vector"].to_numpy().astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    uploaded = browser.post("/v1/uploads", content=drawn[4].read_bytes()).json()["image_id"]
    for own in (ids[0], uploaded):
        cosines = vectors @ vectors[ids.index(own)]
        order = [i for i in np.argsort(-cosines) if ids[i] != own]
        page = browser.get("/pictures/drawn", params={"like": own}).text
        assert shown(page) == [ids[i] for i in order]
        said = [float(each) for each in re.findall(r"· (-?\d\.\d{3})</p>", page)]
        assert said == pytest.approx([cosines[i] for i in order], abs=0.002)
        assert f"?like={ids[order[0]]}" in page
        assert "at the " in page  # captions stand with the hits


def test_what_cannot_be_searched_by_a_picture_says_what_to_do(
    browser: TestClient, drawn: list[Path]
) -> None:
    uploaded = browser.post("/v1/uploads", content=drawn[0].read_bytes()).json()["image_id"]
    bare = browser.get("/pictures/bare")
    assert "More like this" not in bare.text
    assert '<p class="quiet">1 image, 0 of them with captions' in bare.text
    assert "<b>1</b> image</p>" in bare.text
    assert '<p class="quiet">1 image</p>' in browser.get("/pictures").text
    assert "cirflow run embed-gallery --set collection=bare --set methods=image-only" in bare.text
    refused = browser.get("/pictures/bare", params={"like": uploaded})
    assert refused.status_code == 409
    assert "--set collection=bare" in refused.text
    assert browser.get("/pictures/drawn", params={"like": "0" * 64}).status_code == 404
    assert browser.get("/pictures/drawn", params={"like": "../etc"}).status_code == 422


def test_pages_warn_of_their_own_gallery_alone(
    browser: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A benchmark of drawn pictures is not in doubt because photographs lie under the same root."""
    warned = "deployments.service.pages.warning_for"
    monkeypatch.setattr(warned, lambda profile, *names: f"not drawn: {', '.join(names)}")
    for path, said in (
        ("/pictures/drawn", True),
        ("/progress/drawn", True),
        ("/benchmarks", False),
        ("/reports", False),
        ("/pictures", False),
    ):
        warnings = re.findall("not drawn: ([^<]*)<", browser.get(path).text)
        assert warnings == (["drawn"] if said else [])
