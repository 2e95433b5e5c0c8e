"""The shards of a stage on Ray workers: optional, for users of a Ray cluster.

Each shard is a task of the flow run, made and published by any free worker. A worker process loads
an engine once and keeps it, and reads and writes tables itself. Ray carries a stage and a shard
there and a few numbers back, by cloudpickle: every client of a cluster can run code on it.
Prefect's records stay JSON.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any, Final

from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.requests.ray_workers import RayWorkers
from flows.shard_runners import Made, ShardRunner, in_this_process
from models.spelling import agreed
from storage.tables.plans import Shard
from storage.tables.turns import Turns
from tasks import progress
from tasks.stages.run import run_shard

OBJECT_STORE: Final = 100_000_000
"""Bytes; stages, shards and counts are small."""


def _connection(chosen: RayWorkers) -> dict[str, Any]:
    """Arguments of `ray.init`."""
    if chosen.address:
        return {"log_to_driver": False}
    return {
        "address": "local",  # never a cluster that happens to be there
        "num_cpus": chosen.workers * chosen.cpus,
        "object_store_memory": OBJECT_STORE,
        "include_dashboard": False,
        "log_to_driver": False,
    }


@contextmanager
def runner_of(chosen: RayWorkers) -> Iterator[ShardRunner]:
    """The runner of a flow run: this process, or Ray, which starts with the first missing shard."""
    with ExitStack() as stack:
        started: list[ShardRunner] = []

        def run(stage: Any, turns: Turns) -> Generator[Made]:
            if turns.some:
                if not started:
                    started.append(stack.enter_context(on_ray(chosen)))
                yield from started[0](stage, turns)

        yield run if chosen.workers else in_this_process


@contextmanager
def on_ray(chosen: RayWorkers) -> Iterator[ShardRunner]:
    """A runner that makes shards on Ray; a cluster of the run's own ends with it.

    Raises:
        ConnectionError: nothing answers at the address.
        ValueError: this host has fewer GPUs than one worker wants.
    """
    if not chosen.address:
        _keep_to_this_user()
    import ray
    from prefect_ray import RayTaskRunner
    from prefect_ray.context import remote_options

    # max_calls=0 keeps a worker for further shards; Ray ends those with GPUs after one otherwise.
    options = {"num_cpus": chosen.cpus, "num_gpus": chosen.gpus, "max_calls": 0}
    with (
        temporary_settings({PREFECT_API_URL: _api_url()}),
        RayTaskRunner(chosen.address or None, init_kwargs=_connection(chosen)) as runner,
        remote_options(**options),
    ):
        found = ray.cluster_resources().get("GPU", 0)
        if not chosen.address and found < chosen.gpus:
            wanted = f"{chosen.gpus:g} {agreed(chosen.gpus, 'GPU')}"
            raise ValueError(f"a worker is to have {wanted}, and this host has {found}")

        def run(stage: Any, turns: Turns) -> Generator[Made]:
            waiting: dict[Any, tuple[Shard, Any]] = {}

            def first() -> Made:
                (done,), _ = ray.wait(list(waiting), num_returns=1)
                shard, future = waiting.pop(done)
                future.wait()
                turns.end(shard.key)
                progress.tick(len(shard.members))
                return asdict(shard), future.state

            # No more at once than can be worked on: other flow runs may take the rest.
            for shard in turns:
                future = runner.submit(run_shard, {"stage": stage, "shard": asdict(shard)})
                waiting[future.wrapped_future] = (shard, future)
                if len(waiting) == chosen.workers:
                    yield first()
            while waiting:
                yield first()

        yield run


def _keep_to_this_user() -> None:
    """Let a cluster that is started here listen on loopback only.

    Ray reads the environment when it is imported; its workers inherit it.
    """
    # Ray has no other switch for loopback, on Linux too.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    # Ray would leave a token in the home folder that others may read there.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _api_url() -> str:
    """The server that this run talks to, even a temporary one: workers must use the same."""
    with get_client(sync_client=True) as client:
        return str(client.api_url)
