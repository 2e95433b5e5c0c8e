"""Searches, uploads, galleries and methods as JSON."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool

from deployments.service.errors import Refusal
from deployments.service.records import (
    BatchAnswer,
    BatchRequest,
    Galleries,
    Methods,
    SearchAnswer,
    SearchRequest,
    Upload,
)
from deployments.service.searches import checked_picture, gallery_facts, method_facts, searched
from deployments.service.state import Service, Serving
from models.spelling import agreed

router = APIRouter(tags=["search"])


@router.post("/v1/search")
def search(request: Request, asked: SearchRequest, service: Serving) -> SearchAnswer:
    """Images of a gallery that a reference picture and a text ask for, best first."""
    let_in(request, service)
    return searched(service, asked)


@router.post("/v1/search/batch")
def batch(request: Request, asked: BatchRequest, service: Serving) -> BatchAnswer:
    """Several searches in one request; the first one that is refused refuses all."""
    most = service.settings.limits.batch
    if len(asked.searches) > most:
        said = f"a batch has 1 to {most} searches, not {len(asked.searches)}"
        raise Refusal(422, "too_many", said)
    let_in(request, service, len(asked.searches))
    return BatchAnswer(answers=[searched(service, each) for each in asked.searches])


UPLOADED = {
    "requestBody": {
        "required": True,
        "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("/v1/uploads", openapi_extra=UPLOADED)
async def upload(request: Request, service: Serving) -> Upload:
    """Keep a picture, whose bytes are the body, as the reference of searches for a while."""
    let_in(request, service)
    data = await request.body()
    facts = await run_in_threadpool(checked_picture, service, data)
    image_id = service.pictures.add(data)
    return Upload(image_id=image_id, width=facts.width, height=facts.height, format=facts.format)


@router.get("/v1/galleries")
def galleries(service: Serving) -> Galleries:
    """The collections of the root, each with the methods that can search it now."""
    return Galleries(galleries=[gallery_facts(service, name) for name in service.galleries()])


@router.get("/v1/methods")
def methods(service: Serving) -> Methods:
    """All methods; those that do not run under the profile say why."""
    from models.retrieval.methods import METHODS

    return Methods(methods=[method_facts(service, name) for name in METHODS])


def let_in(request: Request, service: Service, count: int = 1) -> None:
    """Refuse a client that searches too often.

    Raises:
        Refusal: with the seconds to wait.
    """
    client = request.client.host if request.client else ""
    if wait := service.rate.take(client, count):
        limits = service.settings.limits
        raise Refusal(
            429,
            "too_many_requests",
            f"more than {limits.rate:g} {agreed(limits.rate, 'search', 'searches')} a second "
            f"(at once: {limits.burst}); ask again in {wait:.1f} s",
        )
