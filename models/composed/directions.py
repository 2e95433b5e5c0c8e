"""The direction of a query as literal text: forward, or backward from target to reference.

BLIP4CIR+Bi puts `[FORWARD]` or `[BACKWARD]` before every part of a text between its "and"s. Its
code splits at the letters, so that "sand" is split too; here that is one of three ways.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

Direction: TypeAlias = Literal["forward", "backward"]
Splitting: TypeAlias = Literal["words", "letters", "none"]

_BETWEEN: Final[Mapping[Splitting, re.Pattern[str]]] = MappingProxyType(
    {"words": re.compile(r"\band\b"), "letters": re.compile("and"), "none": re.compile("(?!)")}
)


def marked(text: str, direction: Direction, splitting: Splitting = "words") -> str:
    """A text with its direction before every part; runs of blanks become one.

    Args:
        text: Of the forward query.
        direction: Whether the query leads to the target or back to the reference.
        splitting: Parts end at the word "and" (`words`), at its letters also inside words
            (`letters`, as the published weights were trained), or nowhere (`none`).
    """
    parts = _BETWEEN[splitting].split(text)
    return " ".join("and".join(f" [{direction.upper()}] {part}" for part in parts).split())
