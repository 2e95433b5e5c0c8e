"""The auth string of a server: `user:password`, one for everybody who may use it.

It travels in environments and in one file that only its owner may read, never on a command line,
in a log or in a flow's parameters. Other users of the machine can read neither.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from deployments.errors import UserError

SERVER_VARIABLE = "PREFECT_SERVER_API_AUTH_STRING"
CLIENT_VARIABLE = "PREFECT_API_AUTH_STRING"
USER = "cirflow"


def make_auth_file(file: Path) -> bool:
    """Write a new auth string, unless there is one; True if it was written."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(f"{USER}:{secrets.token_urlsafe(24)}\n")
    return True


def read_auth_file(file: Path) -> str:
    """The auth string of a file; empty if there is none.

    Raises:
        UserError: the file is another user's or a link, or others may read it: they know what it
            says.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); {_REMEDY}") from error
    with os.fdopen(descriptor, encoding="utf-8") as opened:
        about = os.fstat(opened.fileno())
        if about.st_uid != os.geteuid() or stat.S_IMODE(about.st_mode) & 0o077:
            raise UserError(f"{file} is not yours alone (mode 600); {_REMEDY}")
        return opened.read().strip()


_REMEDY = "stop the server (cirflow down), delete the file, and run cirflow up for a new one"
