"""The gallery browser: pictures with captions, found by words or by a picture that they are like,
and bad rows with reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from deployments.place import embed_command
from deployments.service.errors import Refusal
from deployments.service.pages import page
from deployments.service.routes.search_api import let_in
from deployments.service.searches import gallery_facts, stages_of
from deployments.service.state import Service, Serving
from tasks.explorer.pictures import pictures_by_id, pictures_of

if TYPE_CHECKING:
    from tasks.search_gallery import SearchResult

router = APIRouter(include_in_schema=False)

PAGE: Final = 48
"""Pictures of a page."""
ALIKE: Final = "image-only"
"""The method by which pictures are alike: their image features, and no text."""


@router.get("/pictures")
def collections(request: Request, service: Serving) -> HTMLResponse:
    """The collections of the root."""
    facts = [gallery_facts(service, name) for name in service.galleries()]
    return page(request, "collections.html", title="Pictures", galleries=facts)


@router.get("/pictures/{name}")
def pictures(
    request: Request,
    service: Serving,
    name: str,
    text: Annotated[str, Query(max_length=200)] = "",
    like: Annotated[str, Query(pattern="^([0-9a-f]{64})?$")] = "",
    number: Annotated[int, Query(alias="page", ge=1)] = 1,
) -> HTMLResponse:
    """A collection's pictures: all, those with some words, or those that are most like one."""
    service.require_gallery(name)
    scores: dict[str, float] = {}
    if like:
        let_in(request, service)
        scores = {hit.image_id: hit.score for hit in _most_alike(service, name, like).hits}
        found = pictures_by_id(service.profile, name, list(scores))
    else:
        found = pictures_of(service.profile, name, text, number, PAGE)

    def link(number: int) -> str:
        return f"/pictures/{name}?{urlencode({'text': text, 'page': number})}"

    return page(
        request,
        "pictures.html",
        title=name,
        of=name,
        name=name,
        text=text,
        pictures=found,
        like=like,
        shown=[(each, scores.get(each.image_id)) for each in found.shown],
        embed="" if _is_embedded(service, name) else _embed(service, name),
        number=found.page,
        pages=found.pages,
        link=link,
    )


def _most_alike(service: Service, name: str, image_id: str) -> SearchResult:
    """The pictures of a collection that are most like one, which is not among them.

    Raises:
        Refusal: no picture has the id, or the collection lacks image features.
        ImageProblem: it cannot be decoded.
    """
    from tasks.search_gallery import search_gallery

    image = service.picture(image_id)
    if not _is_embedded(service, name):
        said = f"{name!r} cannot be searched by a picture yet: {_embed(service, name)}"
        raise Refusal(409, "not_embedded", said)
    stages = stages_of(service, name, ALIKE)
    return search_gallery(
        service.profile, name, stages, image, "", method=ALIKE, k=PAGE, kept=service.kept
    )


def _is_embedded(service: Service, name: str) -> bool:
    return ALIKE in gallery_facts(service, name).methods


def _embed(service: Service, name: str) -> str:
    return embed_command(name, ALIKE, service.settings.chosen)
