"""Prefect's variables: what Prefect cannot read is refused in one line, before anything starts."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit

from deployments.errors import UserError, refused_variables

API_URL = "PREFECT_API_URL"
HOME = "PREFECT_HOME"


def check_variables() -> None:
    """Import Prefect's settings, if they can be read.

    Raises:
        UserError: an address that is not one, a folder that cannot be written to, or a value that
            Prefect refuses; with the name of the variable and what to do.
    """
    if os.environ.get(API_URL):
        check_address(os.environ[API_URL])
    if os.environ.get(HOME):
        _check_folder(Path(os.environ[HOME]).expanduser())
    said = StringIO()
    with redirect_stderr(said):  # a variable that it refuses makes Prefect complain at import
        from prefect.settings import get_current_settings
        from pydantic import ValidationError

        try:
            get_current_settings()
        except ValidationError as error:
            faults = "; ".join(fault["msg"] for fault in error.errors())
            raise UserError(
                refused_variables(error)
                or f"Prefect's settings cannot be read ({faults}): `prefect config view` shows "
                "where each comes from, a variable, a profile or a file"
            ) from error
    sys.stderr.write(said.getvalue())


def check_address(given: str) -> None:
    """Refuse what is not the address of a server's API.

    Raises:
        UserError: it has no http:// or https://, no host, or no such port.
    """
    try:
        parts = urlsplit(given)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a bracket that is not closed, a port that is not a number
        right = False
    if not right:
        raise UserError(
            f"{API_URL}={given!r} is not a web address: give http://HOST:PORT/api as `cirflow up` "
            "prints it, or unset it for a temporary server"
        )


def _check_folder(folder: Path) -> None:
    """Refuse a home in which Prefect could not keep its database."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(
            f"{HOME}={str(folder)!r}: {there} is not a folder that you may write to; name another, "
            "or unset it"
        )
