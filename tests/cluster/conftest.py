"""A cluster on loopback: Postgres, a Prefect server, an S3 store and two workers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from deployments.stack.settings import StackSettings
from tests.fakes.cluster import Cluster
from tests.fakes.postgres import free_port, postgres
from tests.storage.conftest import s3_environment, s3_server

__all__ = ["s3_environment", "s3_server"]

ROOT = "s3://cluster/tables"
SILENCE = timedelta(seconds=75)
"""Two heartbeats and some patience; ten minutes on a real cluster, where they come every three."""


@pytest.fixture(scope="module")
def postgres_address() -> Iterator[str]:
    """USER:PASSWORD@HOST:PORT/DATABASE of a real server."""
    with postgres() as address:
        yield address


@pytest.fixture(scope="module")
def cluster(
    postgres_address: str,
    s3_environment: None,
    tmp_path_factory: pytest.TempPathFactory,
    repository: Path,
) -> Iterator[Cluster]:
    """Server and deployments of an empty cluster; tables lie in the bucket `cluster`."""
    with pytest.MonkeyPatch.context() as patch:
        database = f"postgresql+asyncpg://{postgres_address}"
        patch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", database)
        patch.setenv("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
        patch.setenv("PREFECT_WORKER_QUERY_SECONDS", "2")
        patch.setenv("PYTHONPATH", str(repository))
        # Thousands of requests that moto's server would tell, one line each.
        patch.setattr(logging.getLogger("werkzeug"), "disabled", True)
        made = Cluster(StackSettings(tmp_path_factory.mktemp("cluster"), port=free_port()))
        try:
            made.start_server()
            made.register(ROOT, SILENCE)
            yield made
        finally:
            made.close()
