"""Whether a root can be used, asked before anything is started: one look, with the remedy."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import fsspec

from storage.locations.location import Location, LocationError

CREDENTIALS: Final = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (and AWS_ENDPOINT_URL for a "
    "server that is not Amazon's)"
)
"""Where S3's credentials are read from."""
_SECONDS: Final = 5.0
"""Longest wait for a server to take a connection."""


def require_access(location: Location) -> None:
    """Refuse a root that does not exist and cannot be made, or that cannot be reached.

    Raises:
        LocationError: says why, and what to do.
    """
    require_reachable(location)
    if location.is_local:
        require_folder(Path(location.root), "tables", "root")
    else:
        _require_bucket(location.root)


def require_reachable(location: Location) -> None:
    """Refuse S3 without credentials or without a server, before its client is imported.

    Raises:
        LocationError: says what to set.
    """
    if location.is_local:
        return
    fault = "" if _has_credentials() else f"there are no credentials; {CREDENTIALS}"
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    if endpoint and not fault:
        fault = _unreachable(endpoint)
    if fault:
        raise LocationError(f"{location.root} cannot be used: {fault}")


def _has_credentials() -> bool:
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return True
    from botocore.session import Session

    return Session().get_credentials() is not None


def _unreachable(endpoint: str) -> str:
    """Why nothing listens at an address; empty where something does."""
    parts = urlsplit(endpoint)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=_SECONDS).close()
    except (OSError, ValueError) as error:
        return (
            f"no server answers at {endpoint} ({error}); start it, or set AWS_ENDPOINT_URL to the "
            "address of one"
        )
    return ""


def require_folder(folder: Path, what: str, setting: str) -> None:
    """Refuse a folder that cannot be made or written to; one that can is there afterwards.

    Args:
        folder: The folder.
        what: What is to be kept in it, for the message.
        setting: The setting that names it.

    Raises:
        LocationError: says which folder above it stands in the way, and why.
    """
    probe = folder / f".{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        nearest = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
        said = "is not a folder" if not nearest.is_dir() else f"says: {error.strerror}"
        raise LocationError(
            f"{what} cannot be kept at {folder}: {nearest} {said}. Choose another place "
            f"({setting}=DIR), or mend the folder"
        ) from error


def _require_bucket(root: str) -> None:
    from botocore.exceptions import BotoCoreError

    bucket, _, prefix = root.removeprefix("s3://").partition("/")
    try:
        fsspec.filesystem("s3", use_listings_cache=False).call_s3(
            "list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1
        )
    except (BotoCoreError, OSError) as error:
        raise LocationError(f"{root} cannot be used: {s3_fault(error)}") from error


def s3_fault(error: Exception) -> str:
    """An error of S3's client, with its remedy."""
    name = type(error).__name__
    if "Credential" in name or isinstance(error, PermissionError):
        return f"{error}; {CREDENTIALS}"
    if "Endpoint" in name or "Connect" in name or "Timeout" in name:
        return f"{error}; start the server, or set its address (AWS_ENDPOINT_URL)"
    if isinstance(error, FileNotFoundError):
        return f"{error}; make the bucket, or name another"
    return str(error)
