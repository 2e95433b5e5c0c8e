"""Names of artifacts and of folders next to them; quick to import."""

from __future__ import annotations

import re


def artifact_key(*parts: str) -> str:
    """A key that Prefect takes: lower case letters, digits and dashes; never empty.

    Raises:
        ValueError: the parts have neither a letter nor a digit.
    """
    key = re.sub(r"[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")
    if not key:
        raise ValueError(f"an artifact's key needs a letter or digit; {parts!r} has none")
    return key
