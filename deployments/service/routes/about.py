"""Whether the service is well, and its measures."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from deployments import __version__
from deployments.service.state import Serving
from deployments.service.warming import State

router = APIRouter(tags=["service"])


class Health(BaseModel):
    """The service answers; `profile` names its models.

    `warm` is `warming` while galleries and models are loaded in the background, then `ready`, or
    `failed`; `off` where searches load them.
    """

    status: str
    version: str
    profile: str
    warm: State


@router.get("/v1/health")
def health(service: Serving) -> Health:
    """Whether the service answers."""
    return Health(
        status="ok",
        version=__version__,
        profile=service.profile.name,
        warm=service.warming.state,
    )


@router.get("/metrics", response_class=Response)
def metrics(service: Serving) -> Response:
    """Counts and times, for Prometheus."""
    return Response(service.metrics.text(), media_type=service.metrics.kind)
