"""What a check of this machine found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One check: ok, note (it works, with a remark) or broken, with its remedy."""

    what: str
    state: Literal["ok", "note", "broken"]
    found: str
    remedy: str = ""
