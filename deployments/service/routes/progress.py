"""How far a gallery is: captions that are still made, and methods that switch on."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from deployments.service.pages import page
from deployments.service.searches import gallery_facts
from deployments.service.state import Service, Serving
from tasks.foreign_pictures import warning_for
from tasks.readiness import Readiness, readiness

router = APIRouter(tags=["galleries"])


class TableProgress(BaseModel):
    """A table of a gallery: images with a row, of all."""

    title: str
    done: int
    planned: int


class MethodProgress(BaseModel):
    """A method; `lacks` names the tables that are not whole yet, and is empty where it is ready."""

    name: str
    title: str
    lacks: list[str]


class Progress(BaseModel):
    """What of a gallery is made; `warning` says where its pictures do not fit the models, `fault`
    what went wrong with what is made beside the service."""

    gallery: str
    whole: bool
    warning: str
    fault: str
    tables: list[TableProgress]
    methods: list[MethodProgress]


@router.get("/v1/progress/{gallery}")
def progress(gallery: str, service: Serving) -> Progress:
    """What of a gallery is made, and the methods that can search it already."""
    found = _readiness(gallery, service)
    return Progress(
        gallery=gallery,
        whole=found.is_whole,
        warning=warning_for(service.profile, gallery),
        fault=service.settings.fault_of(gallery),
        tables=[TableProgress(**vars(each)) for each in found.tables],
        methods=[
            MethodProgress(name=each.name, title=each.title, lacks=list(each.lacks))
            for each in found.methods
        ],
    )


@router.get("/progress", response_class=HTMLResponse, include_in_schema=False)
def galleries(request: Request, service: Serving) -> HTMLResponse:
    """The galleries, each with a link to its progress."""
    facts = [gallery_facts(service, name) for name in service.galleries()]
    return page(request, "galleries.html", title="Progress", galleries=facts)


@router.get("/progress/{gallery}", response_class=HTMLResponse, include_in_schema=False)
def progress_page(gallery: str, request: Request, service: Serving) -> HTMLResponse:
    """The same as a page, which renews itself until nothing is left to be made."""
    return page(
        request,
        "progress.html",
        title=f"Progress of {gallery}",
        of=gallery,
        gallery=gallery,
        fault=service.settings.fault_of(gallery),
        found=_readiness(gallery, service),
    )


def _readiness(gallery: str, service: Service) -> Readiness:
    service.require_gallery(gallery)
    return readiness(service.profile, gallery)
