"""A run ends in its own state although the limit that it holds is gone.

Prefect frees a run's slot in the transaction that writes its next state, and refuses both where the
limit was deleted or switched off meanwhile: with its deployment, or on the page Concurrency. Such a
run would be shown as running for ever, whatever it did.
"""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

logger = logging.getLogger(__name__)


def let_runs_outlive_limits() -> None:
    """Let this process's server write states of runs whose limit is gone."""
    import prefect.server.models.flow_runs  # noqa: F401 (the policy cannot be imported before it)
    from prefect.server.concurrency.lease_storage import get_concurrency_lease_storage
    from prefect.server.orchestration import core_policy

    release = core_policy._release_concurrency_lease
    if getattr(release, "outlives_limits", False):
        return

    async def released(session: Any, lease_id: UUID, *args: Any, **kwargs: Any) -> None:
        try:
            await release(session, lease_id, *args, **kwargs)
        except RuntimeError:  # those limits that are there have been freed
            logger.warning("a limit of lease %s is gone; the run that held it goes on", lease_id)
            await get_concurrency_lease_storage().revoke_lease(lease_id)

    released.outlives_limits = True  # type: ignore[attr-defined]
    core_policy._release_concurrency_lease = released
