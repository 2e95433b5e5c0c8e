"""What the routers share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from deployments.service.metrics import Metrics
from deployments.service.settings import ServiceSettings
from storage.collections.known import list_collections
from storage.locations.location import Location
from tasks.settings import Profile


@dataclass(frozen=True)
class Service:
    """The running service.

    Attributes:
        settings: Where it listens and what it allows.
        metrics: Counts and times of its requests.
    """

    settings: ServiceSettings
    metrics: Metrics

    @property
    def profile(self) -> Profile:
        """Models and settings."""
        return self.settings.profile

    @property
    def root(self) -> str:
        """Root of the tables."""
        return self.profile.root

    def galleries(self) -> list[str]:
        """Names of the collections of the root."""
        return list_collections(Location(self.root))


def service_of(request: Request) -> Service:
    """The service that answers a request."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


Serving = Annotated[Service, Depends(service_of)]
"""Type of a route's parameter that is given the service."""
