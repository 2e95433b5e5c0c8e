"""Secrets that flow runs get from the server: Prefect Secret blocks, for which the pools' job
templates hold a reference. The value is in no parameter, no job variable and on no command line.

Every client of the API can read the blocks, so they suit servers that require an auth string or
listen on loopback only.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deployments.errors import UserError
from deployments.stack.job_templates import ENVIRONMENT, with_environment

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


def add_secret_argument(parser: argparse.ArgumentParser) -> None:
    """The option by which commands name secrets."""
    parser.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="VARIABLE",
        help="environment variable that runs get from a Secret block; may be repeated",
    )


def ensure_secret_blocks(
    client: SyncPrefectClient, variables: Sequence[str], pools: Sequence[str]
) -> tuple[str, ...]:
    """Make the blocks that are missing and let all runs of the pools have them; returns the new.

    Args:
        client: A client of the server; Prefect's own settings name the same server.
        variables: Environment variables, e.g. OPENAI_API_KEY: the block `openai-api-key` is made
            from the value here, and runs find it under the variable's name.
        pools: Work pools whose runs get them.

    Raises:
        UserError: a variable without a value here, for which there is no block.
    """
    made = tuple(name for name in variables if _make_block(client, name))
    for pool in pools if variables else ():
        _refer(client, pool, variables)
    return tuple(block_name(name) for name in made)


def block_name(variable: str) -> str:
    """Name of the Secret block of an environment variable."""
    return variable.lower().replace("_", "-")


def _make_block(client: SyncPrefectClient, variable: str) -> bool:
    from prefect.blocks.system import Secret
    from prefect.exceptions import ObjectNotFound

    name = block_name(variable)
    try:
        client.read_block_document_by_name(name, "secret")
    except ObjectNotFound:
        value = os.environ.get(variable)
        if not value:
            raise UserError(
                f"{variable} has no value here, and there is no Secret block {name!r} yet: set it "
                "in the environment, or make the block in the UI (Blocks > Secret)"
            ) from None
        Secret(value=value).save(name)
        return True
    return False


def _refer(client: SyncPrefectClient, pool: str, variables: Sequence[str]) -> None:
    """Put references into the pool's job template where it has none of that name."""
    from prefect.client.schemas.actions import WorkPoolUpdate

    template: dict[str, Any] = client.read_work_pool(pool).base_job_template
    properties: dict[str, Any] = template["variables"]["properties"]
    wanted = {name: f"{{{{ prefect.blocks.secret.{block_name(name)} }}}}" for name in variables}
    if not set(wanted) <= set(properties[ENVIRONMENT].get("default") or {}):
        properties[ENVIRONMENT] = with_environment(properties, wanted)
        client.update_work_pool(pool, WorkPoolUpdate(base_job_template=template))
