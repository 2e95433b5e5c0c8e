"""The search page; `static/search.js` moves it."""

from __future__ import annotations

import json
import shlex

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from deployments.service.pages import page
from deployments.service.searches import gallery_facts, method_facts
from deployments.service.state import Serving

router = APIRouter(include_in_schema=False)


@router.get("/")
def search(request: Request, service: Serving) -> HTMLResponse:
    """Controls with what there is to choose."""
    from models.retrieval.methods import METHODS

    galleries = [gallery_facts(service, name) for name in service.galleries()]
    methods = [method_facts(service, name) for name in METHODS]
    facts = {
        "galleries": [each.model_dump() for each in galleries],
        "methods": [each.model_dump() for each in methods if each.ready],
        "chosen": shlex.join(service.settings.chosen),
        "most": service.settings.limits.k,
    }
    return page(
        request, "search.html", title="Search", galleries=galleries, facts=json.dumps(facts)
    )
