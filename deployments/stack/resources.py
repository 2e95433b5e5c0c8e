"""Work pools, limits and variables that the deployments count on, made once and left as they are.

What somebody changed in the UI stays changed: only what is missing is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deployments.stack.job_templates import Images, job_template

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

POOLS: Mapping[str, str] = {
    "cpu": "Everything that needs no GPU: ingest, triplets, scores, reports, small models.",
    "gpu": "Captions, features and training on a GPU. One worker for each GPU, one run at a time.",
}
"""Work pool -> what it is for."""

LIMITS: Mapping[str, int] = {"llm-server": 4, "gpu-slot": 1}
"""Global concurrency limit -> how many may hold it at once."""


@dataclass(frozen=True)
class Made:
    """What was missing and was made."""

    pools: tuple[str, ...]
    limits: tuple[str, ...]


NO_IMAGES = Images()


def ensure_resources(
    client: SyncPrefectClient, pool_type: str = "process", images: Images = NO_IMAGES
) -> Made:
    """Make the work pools and limits that are missing.

    Args:
        client: A client of the server.
        pool_type: Kind of the pools that are made: process, docker or kubernetes.
        images: Container images of the pools' runs; process pools need none.

    Raises:
        ValueError: another kind of pool, or runs in containers without an image.
    """
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, WorkPoolCreate

    pools = {pool.name for pool in client.read_work_pools(limit=200)}
    limits = {limit.name for limit in client.read_global_concurrency_limits(limit=200, offset=0)}
    new_pools = tuple(name for name in POOLS if name not in pools)
    new_limits = tuple(name for name in LIMITS if name not in limits)
    templates = {name: _template(pool_type, name, images) for name in new_pools}
    for name in new_pools:
        client.create_work_pool(
            WorkPoolCreate(
                name=name,
                type=pool_type,
                description=POOLS[name],
                base_job_template=templates[name],
            )
        )
    for name in new_limits:
        client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=name, limit=LIMITS[name], active=True)
        )
    return Made(new_pools, new_limits)


def _template(pool_type: str, pool: str, images: Images) -> dict[str, Any]:
    """Ours, or Prefect's where we have none."""
    from prefect.utilities.asyncutils import run_coro_as_sync
    from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

    ours = job_template(pool_type, pool, images)
    return (
        ours
        or run_coro_as_sync(get_default_base_job_template_for_infrastructure_type(pool_type))
        or {}
    )
