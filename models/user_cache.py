"""The user's cache folder, and facts kept in it because they take long to find out.

One small file holds one fact: the thing (`name`), its state at that time (`state`), and the value.
A file that is damaged, unreadable or of another state is ignored, and so is a failed write: the
fact is then found out again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from models.protocols import Json


def user_cache_folder() -> Path:
    """This user's folder for files that can be made or fetched again, by the XDG rule."""
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "cirflow"


def recall(kind: str, name: str, state: Mapping[str, Json]) -> Json:
    """The fact that was remembered of a thing in that state; None where there is none.

    Args:
        kind: The kind of fact; the caller knows the type of its value.
        name: The thing.
        state: All that the fact depends on.
    """
    try:
        record = json.loads(_file(kind, name).read_bytes())
        check = record.pop("check")
    except (OSError, RuntimeError, ValueError, AttributeError, KeyError, TypeError):
        return None
    if check != _check(record) or record.get("name") != name or record.get("state") != dict(state):
        return None
    value: Json = record.get("value")
    return value


def remember(kind: str, name: str, state: Mapping[str, Json], value: Json) -> None:
    """Remember a fact for all programs of this user, in the place of an older one of that name."""
    record: dict[str, Json] = {"name": name, "state": dict(state), "value": value}
    text = json.dumps({**record, "check": _check(record)})
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: the user has no home folder
        file = _file(kind, name)
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, staged = tempfile.mkstemp(dir=file.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
            os.replace(staged, file)
        except OSError:
            Path(staged).unlink(missing_ok=True)


def _file(kind: str, name: str) -> Path:
    """One file a fact: programs that write at the same time cannot lose each other's."""
    return user_cache_folder() / kind / f"{hashlib.sha256(name.encode()).hexdigest()[:40]}.json"


def _check(record: Mapping[str, Json]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
