"""The application: routers behind the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from deployments import __version__
from deployments.server.guard import Guard
from deployments.service.entrance import Entrance
from deployments.service.errors import Faulty, add_handlers
from deployments.service.pages import STATIC
from deployments.service.routers import routers
from deployments.service.settings import ServiceSettings
from deployments.service.state import Service, new_service

REFUSALS = {422: {"model": Faulty, "description": "Refused; the message says what to do."}}


def create_app(settings: ServiceSettings) -> FastAPI:
    """The service's application, guarded.

    Raises:
        UserError: settings that are not safe.
    """
    settings.check()
    service = new_service(settings)
    # FastAPI's own pages load scripts from elsewhere; ours is in `routes/api_page.py`.
    app = FastAPI(
        title="cirflow",
        version=__version__,
        summary="Composed image retrieval: a reference image and a text find a target image.",
        docs_url=None,
        redoc_url=None,
        lifespan=_warmed,
    )
    app.state.service = service
    add_handlers(app)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    for router in routers():
        app.include_router(router, responses=REFUSALS)  # type: ignore[arg-type]
    limits = settings.limits
    app.add_middleware(
        Entrance,
        metrics=service.metrics,
        token=settings.token,
        body_bytes=limits.body_bytes,
    )
    app.add_middleware(Guard, allowed=settings.allowed)
    return app


@asynccontextmanager
async def _warmed(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    if service.settings.warm:
        service.warming.start(service)
    yield
    service.warming.stop()
