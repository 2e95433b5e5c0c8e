"""A client of a Prefect server, with errors in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deployments.errors import UserError
from deployments.stack.auth import CLIENT_VARIABLE, SERVER_VARIABLE

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient


@contextmanager
def server_client(url: str) -> Iterator[SyncPrefectClient]:
    """A client of the server that the environment names.

    Args:
        url: The server's API, for messages.

    Raises:
        UserError: no server answers there, or the server wants another auth string.
    """
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    with get_client(sync_client=True) as client:
        try:
            client.read_work_pools(limit=1)
        except httpx.TransportError as error:
            raise UserError(
                f"no Prefect server answers at {url} ({error}): start it, or set PREFECT_API_URL"
            ) from error
        except PrefectHTTPStatusError as error:
            if error.response.status_code not in (401, 403):
                raise
            raise UserError(
                f"the server at {url} wants another auth string: set {CLIENT_VARIABLE} (for "
                f"`cirflow up`: {SERVER_VARIABLE}) to the one it was started with. `cirflow up` "
                "keeps its own in FOLDER/.cirflow/prefect/auth-string, where commands that are "
                "typed in FOLDER find it"
            ) from error
        yield client
