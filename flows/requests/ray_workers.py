"""Worker processes of Ray, as a form asks for them."""

from __future__ import annotations

import importlib.util
from typing import Final

from pydantic import Field, model_validator

from models.settings import Settings


class RayWorkers(Settings):
    """Worker processes of Ray."""

    address: str = ""
    """HOST:PORT of a Ray cluster. Empty: one on this host, for this run alone."""
    workers: int = Field(0, ge=0)
    """Shards at once, each in a process of its own. 0: without Ray."""
    cpus: int = Field(1, ge=1)
    """CPU cores for each worker."""
    gpus: float = Field(0.0, ge=0)
    """GPUs for each worker; 0.5 lets two share one."""

    @model_validator(mode="after")
    def _is_installed(self) -> RayWorkers:
        if self.workers and importlib.util.find_spec("prefect_ray") is None:
            raise ValueError("Ray is not installed here: pip install 'cirflow[ray]'")
        return self


NO_RAY: Final = RayWorkers()
