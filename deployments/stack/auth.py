"""The auth string of a server that other machines can reach: `user:password`, one for everybody.

It travels in environments and in one file that only its owner may read, never on a command line,
in a log or in a flow's parameters.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

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
    """The auth string of a file; empty if there is none."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
