"""Whether the service is well, and its measures."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel

from deployments import __version__
from deployments.service.state import Serving

router = APIRouter(tags=["service"])


class Health(BaseModel):
    """The service answers; `profile` names its models."""

    status: str
    version: str
    profile: str


@router.get("/v1/health")
def health(service: Serving) -> Health:
    """Whether the service answers."""
    return Health(status="ok", version=__version__, profile=service.profile.name)


@router.get("/metrics", response_class=Response)
def metrics(service: Serving) -> Response:
    """Counts and times, for Prometheus."""
    return Response(service.metrics.text(), media_type=service.metrics.kind)
