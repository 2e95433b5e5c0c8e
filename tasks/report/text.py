"""Words and numbers as the report writes them."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from difflib import SequenceMatcher

from models.spelling import counted
from tasks.report.records import Interval, JsonValue

MINUS = "\N{MINUS SIGN}"
LONGEST_TEXT = 600
"""Characters of one model text that are shown; the rest is counted."""
_LONGEST_DIFF = 120  # words; comparing is quadratic
_UNSHOWABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def showable(text: str) -> str:
    """Replace what HTML or UTF-8 cannot hold (control codes, lone surrogates) by U+FFFD."""
    return _UNSHOWABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def clip(text: str, limit: int = LONGEST_TEXT) -> str:
    """Cut an overlong text and say how much is missing."""
    if len(text) <= limit:
        return text
    more = counted(len(text) - limit, "more character")
    return f"{text[:limit]}\N{HORIZONTAL ELLIPSIS} [{more}]"


def percent(value: float) -> str:
    """A percentage as the papers print it: two decimals."""
    return f"{value:.2f}"


def signed(points: float) -> str:
    """A difference in points, with a real minus sign and no minus zero."""
    rounded = round(points, 2)
    if rounded == 0:
        return "0.00"
    return f"{'+' if rounded > 0 else MINUS}{abs(rounded):.2f}"


def fraction(share: float) -> str:
    """A share of one with a real minus sign and no minus zero."""
    return f"{round(share, 2) + 0.0:.2f}".replace("-", MINUS)


def span(interval: Interval) -> str:
    """An interval in percent: one decimal, since the bounds are estimates themselves."""
    low, high = (f"{bound:.1f}".replace("-", MINUS) for bound in interval)
    return f"[{low}, {high}]"


def thousands(number: int) -> str:
    """A count with its thousands apart."""
    return f"{number:,}"


def duration(seconds: float) -> str:
    """Wall-clock time for people, such as ``0.4 s`` or ``2 min 05 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def now() -> str:
    """The present time for people, such as ``2026-11-21 14:03 UTC``."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def label(name: str) -> str:
    """A field name as words."""
    return name.replace("_", " ")


def plain(value: JsonValue) -> str:
    """A JSON value in one line of prose."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{label(str(k))} {plain(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or "none"
    return str(value)


def pretty_json(value: JsonValue) -> str:
    """A specification as readable JSON."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)


Pieces = tuple[tuple[str, bool], ...]
"""Runs of words, each with whether the other text of a pair lacks it."""


def compare(before: str, after: str) -> tuple[Pieces, Pieces]:
    """Mark the words in which two texts differ."""
    before, after = clip(before), clip(after)
    old, new = before.split(), after.split()
    if not old or not new or max(len(old), len(new)) > _LONGEST_DIFF:
        return ((before, False),), ((after, False),)
    steps = SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes()
    left = [(" ".join(old[a0:a1]), kind != "equal") for kind, a0, a1, _, _ in steps]
    right = [(" ".join(new[b0:b1]), kind != "equal") for kind, _, _, b0, b1 in steps]
    return tuple(piece for piece in left if piece[0]), tuple(piece for piece in right if piece[0])
