"""A refused request says what was given and why, in words of the service alone."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("no json", "the body is not JSON (character 0: Expecting value)"),
        ('{"text": "red"}', "body: give the reference as image_id or as image_base64"),
        ('{"text": "red", "k": -1}', "k: Input should be greater than or equal to 1, not -1"),
        (
            '{"text": "red", "metod": "cvsi"}',
            "body: unknown field 'metod'; did you mean 'method'? known: gallery, text, image_id,",
        ),
        (
            '{"text": "red", "weights": {"gallry": {}}}',
            "weights: unknown field 'gallry'; did you mean 'gallery'? known: query, gallery",
        ),
        ('{"text": "red", "%s": 1}' % ("x" * 90), "body: unknown field 'xxxx"),
        ('{"text": "red", "k": true}', "k: Input should be a number, not True"),
        (
            '{"text": "red", "weights": {"query": {"joined": true}}}',
            "weights.query.joined: Input should be a number, not True",
        ),
        (
            '{"text": "red", "weights": {"gallery": {"image": false}}}',
            "weights.gallery.image: Input should be a number, not False",
        ),
        ('{"text": "%s"}' % ("x" * 2001), "text: String should have at most 2000 characters"),
    ],
)
def test_refusals_of_bodies_are_words(body: str, said: str) -> None:
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from deployments.service.errors import add_handlers
    from deployments.service.routes.search_api import router
    from deployments.service.state import service_of

    app = FastAPI()
    add_handlers(app)
    app.include_router(router)
    app.dependency_overrides[service_of] = lambda: None  # no body comes so far
    answer = TestClient(app).post(
        "/v1/search",
        content=body.replace("{", '{"gallery": "photos", ', 1),
        headers={"content-type": "application/json"},
    )
    message = answer.json()["error"]["message"]
    assert message.startswith(said)
    assert "Value error" not in message
    assert "x" * 81 not in message
