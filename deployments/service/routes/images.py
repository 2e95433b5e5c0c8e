"""Pictures by their content."""

from __future__ import annotations

import functools
from typing import Annotated

from fastapi import APIRouter, Path, Response

from deployments.service.errors import Refusal
from deployments.service.state import Serving
from storage.tables.table import IncompleteTable
from tasks.explorer.thumbnails import Thumbnails

router = APIRouter(tags=["images"])

ImageId = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="sha256 of the image's file")]


@router.get(
    "/v1/images/{image_id}/thumbnail",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {}}}},
)
def image(service: Serving, image_id: ImageId, side: int = 320) -> Response:
    """An image as JPEG, its longest side at most 160, 320, 640 or 1280 pixels."""
    try:
        data = _kept(service.root).jpeg(image_id, side)
    except IncompleteTable as error:
        raise Refusal(404, "unknown_image", str(error)) from error
    kept = {"cache-control": "private, max-age=31536000, immutable"}
    return Response(data, media_type="image/jpeg", headers=kept)


@functools.lru_cache(maxsize=4)
def _kept(root: str) -> Thumbnails:
    return Thumbnails(root)
