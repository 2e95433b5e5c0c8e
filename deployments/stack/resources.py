"""Work pools, limits, blocks and the rule for dead runs.

Only missing ones are made, so changes made in the UI stay. Pools that let a run choose its own
command or environment, as earlier versions and Prefect itself make them, are closed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deployments.stack.job_templates import Images, closed, job_template
from deployments.stack.secret_blocks import ensure_secret_blocks
from deployments.stack.unresponsive_runs import NAME, ensure_crash_rule

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import WorkPool

POOLS: Mapping[str, str] = {
    "cpu": "Everything that needs no GPU: ingest, triplets, scores, reports, small models.",
    "gpu": "Captions, features and training on a GPU. One worker for each GPU, one run at a time.",
}
"""Work pool -> its purpose, as the UI shows it."""

LIMITS: Mapping[str, int] = {"llm-server": 4, "gpu-slot": 1}
"""Global concurrency limit -> number of runs that may hold it at once."""


@dataclass(frozen=True)
class Made:
    """Names of the parts that were missing and were made."""

    pools: tuple[str, ...]
    closed: tuple[str, ...]
    limits: tuple[str, ...]
    rules: tuple[str, ...]
    secrets: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        """One line of text for each."""
        kinds = {"work pool": self.pools, "limit": self.limits}
        kinds |= {"rule": self.rules, "secret block": self.secrets}
        for kind, names in kinds.items():
            for name in names:
                yield f"made the {kind} {name}"
        for name in self.closed:
            yield f"closed the work pool {name}: single runs may not set command, environment, ..."


NO_IMAGES = Images()


def ensure_resources(
    client: SyncPrefectClient,
    pool_type: str = "process",
    images: Images = NO_IMAGES,
    secrets: Sequence[str] = (),
) -> Made:
    """Make the work pools, limits, blocks and the rule for dead runs that are missing.

    Args:
        client: A client of the server.
        pool_type: Kind of the pools that are made: process, docker or kubernetes.
        images: Container images of the pools' runs; process pools need none.
        secrets: Environment variables that runs get from Secret blocks.

    Raises:
        ValueError: another kind of pool, or runs in containers without an image.
        UserError: a secret without a value.
    """
    there = {pool.name: pool for pool in client.read_work_pools(limit=200) if pool.name in POOLS}
    opened = _close_pools(client, there)
    pools = _make_pools(client, tuple(n for n in POOLS if n not in there), pool_type, images)
    limits = _make_limits(client)
    rules = (NAME,) if ensure_crash_rule(client) else ()
    return Made(pools, opened, limits, rules, ensure_secret_blocks(client, secrets, tuple(POOLS)))


def _close_pools(client: SyncPrefectClient, there: Mapping[str, WorkPool]) -> tuple[str, ...]:
    from prefect.client.schemas.actions import WorkPoolUpdate

    templates = {name: pool.base_job_template for name, pool in there.items()}
    better = {name: closed(template) for name, template in templates.items() if template}
    changed = tuple(name for name, template in better.items() if template != templates[name])
    for name in changed:
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=better[name]))
    return changed


def _make_pools(
    client: SyncPrefectClient, missing: tuple[str, ...], pool_type: str, images: Images
) -> tuple[str, ...]:
    from prefect.client.schemas.actions import WorkPoolCreate

    templates = {name: _template(pool_type, name, images) for name in missing}
    for name, template in templates.items():
        client.create_work_pool(
            WorkPoolCreate(
                name=name,
                type=pool_type,
                description=POOLS[name],
                base_job_template=template,
            )
        )
    return missing


def _make_limits(client: SyncPrefectClient) -> tuple[str, ...]:
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

    there = {limit.name for limit in client.read_global_concurrency_limits(limit=200, offset=0)}
    missing = tuple(name for name in LIMITS if name not in there)
    for name in missing:
        client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=name, limit=LIMITS[name], active=True)
        )
    return missing


def _template(pool_type: str, pool: str, images: Images) -> dict[str, Any]:
    """The project's template, or Prefect's where the project has none; closed."""
    from prefect.utilities.asyncutils import run_coro_as_sync
    from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

    ours = job_template(pool_type, pool, images)
    if ours:
        return ours
    theirs = run_coro_as_sync(get_default_base_job_template_for_infrastructure_type(pool_type))
    assert theirs is not None
    return closed(theirs)
