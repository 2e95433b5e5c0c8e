"""Markdown for Prefect's UI, in which text of models and users stays text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final


class Markdown(str):
    """Text that is Markdown already: made by this project, with `plain` around everything else."""

    __slots__ = ()


_UNSEEN: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]+"
)
"""Control characters, line ends, marks that turn the direction of writing, half characters."""
_ALWAYS: Final = r"""[\\`*_\[\]<>&|~]"""
_IN_ADDRESSES: Final = r":(?=//)|@(?=[\w-]+\.)|(?<=[^\W\d_])\.(?=\w)|(?<=\w)\.(?=[^\W\d_])"
"""What makes `http://a`, `www.a` and `me@a.org` links without brackets; 52.40 stays as it is."""
_SPECIAL: Final = re.compile(f"{_ALWAYS}|{_IN_ADDRESSES}|^[-+=]|#(?![^#\\s])")
_NUMBERED: Final = re.compile(r"^(\d+)([.)])(?!\S)")


def plain(value: object) -> Markdown:
    """A text in one line that is shown as it is: no link, no picture, no element, no emphasis.

    Backslashes stand before everything that Markdown reads (CommonMark 2.4). Prefect's UI would
    show character references as they are written.
    """
    text = _UNSEEN.sub(" ", str(value)).strip()
    return Markdown(_NUMBERED.sub(r"\1\\\2", _SPECIAL.sub(r"\\\g<0>", text)))


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Markdown:
    """A table; cells and columns are plain text, unless they are Markdown."""
    lines = [f"| {' | '.join(map(_cell, columns))} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(map(_cell, row))} |" for row in rows]
    return Markdown("\n".join(lines))


def _cell(value: Any) -> str:
    if isinstance(value, Markdown):
        return value
    return plain(f"{value:.2f}" if isinstance(value, float) else value)
