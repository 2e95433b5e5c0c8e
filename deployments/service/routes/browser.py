"""The gallery browser: pictures with their captions, found by words, and bad rows with reasons."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from deployments.service.pages import page
from deployments.service.state import Serving
from tasks.explorer.pictures import pictures_of

router = APIRouter(include_in_schema=False)

PAGE: Final = 48
"""Pictures of a page."""


@router.get("/pictures")
def collections(request: Request, service: Serving) -> HTMLResponse:
    """The collections of the root."""
    return page(request, "collections.html", title="Pictures", names=service.galleries())


@router.get("/pictures/{name}")
def pictures(
    request: Request,
    service: Serving,
    name: str,
    text: Annotated[str, Query(max_length=200)] = "",
    number: Annotated[int, Query(alias="page", ge=1)] = 1,
) -> HTMLResponse:
    """A collection's pictures."""
    service.require_gallery(name)
    found = pictures_of(service.profile, name, text, number, PAGE)

    def link(number: int) -> str:
        return f"/pictures/{name}?{urlencode({'text': text, 'page': number})}"

    return page(
        request,
        "pictures.html",
        title=name,
        name=name,
        text=text,
        pictures=found,
        number=found.page,
        pages=found.pages,
        link=link,
    )
