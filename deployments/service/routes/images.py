"""Pictures of the root, and those that were uploaded."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Response

from deployments.service.errors import Refusal
from deployments.service.records import ImageFacts
from deployments.service.searches import captions_of
from deployments.service.state import Serving
from storage.collections.thumbnails import SIDES

router = APIRouter(tags=["images"])

Id = Annotated[str, Path(pattern="^[0-9a-f]{64}$")]
KEPT: Final = {
    "cache-control": "private, max-age=86400, immutable",
    "content-security-policy": "default-src 'none'; sandbox",
}
"""An id stands for these bytes for ever; what is shown runs nothing."""
KINDS: Final = {
    name: f"image/{name.lower()}" for name in ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP")
}
"""Formats that browsers show -> their media types; a file of another one is only downloaded."""


@router.get("/v1/images/{image_id}", response_class=Response)
def image(image_id: Id, service: Serving) -> Response:
    """A picture's own bytes."""
    data = service.picture(image_id)
    kind = KINDS.get(service.inspected(data).format, "application/octet-stream")
    return Response(data, media_type=kind, headers=KEPT)


@router.get("/v1/images/{image_id}/thumbnail", response_class=Response)
def small(image_id: Id, service: Serving, side: int = 320) -> Response:
    """A picture as a JPEG whose longer side has at most so many pixels; made once."""
    if side not in SIDES:
        raise Refusal(422, "invalid", f"side is one of {', '.join(map(str, SIDES))}, not {side}")
    return Response(service.thumbnail(image_id, side), media_type="image/jpeg", headers=KEPT)


@router.get("/v1/images/{image_id}/about")
def about(
    image_id: Id, service: Serving, gallery: Annotated[str, Query(max_length=128)] = ""
) -> ImageFacts:
    """What a picture is, and in a gallery its files and captions."""
    facts = service.inspected(service.picture(image_id))
    paths: list[str] = []
    captions: list[str] = []
    if gallery:
        service.require_gallery(gallery)
        listed = service.kept.paths(service.kept.collection(service.root, gallery))
        paths = list(listed.find([image_id])[image_id])
        captions = captions_of(service, gallery, image_id)
    return ImageFacts(
        image_id=image_id,
        width=facts.width,
        height=facts.height,
        format=facts.format,
        paths=paths,
        captions=captions,
    )
