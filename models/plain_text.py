"""Text without the control characters that command a terminal or end a string."""

from __future__ import annotations

import re
from typing import Final

_SEQUENCE: Final = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours and cursor
    "|(?:\x1b\\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)?"  # titles and links
    "|\x1b[PX^_][^\x1b]*(?:\x1b\\\\)?|\x1b[ -/]*[0-~]?"
)
_CONTROL: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]"
)
_LINE_ENDS: Final = re.compile("\r\n?|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")


def without_controls(text: str) -> str:
    """The text without escape sequences and control characters; lines end by a line feed alone.

    Tabs and line feeds stay, and so does every letter of every language.
    """
    return _CONTROL.sub("", _LINE_ENDS.sub("\n", _SEQUENCE.sub("", text)))


def escaped_line(text: str) -> str:
    """The same in one line: line feeds and tabs are escaped too."""
    return escaped(text).replace("\n", "\\n").replace("\t", "\\t")


def escaped(text: str) -> str:
    """The text with everything that cannot be printed as it stands in Python's escapes.

    Line feeds and tabs stay. Names of files may hold any bytes; those that are not UTF-8 arrive as
    single surrogates, which no terminal takes.
    """
    return "".join(
        letter
        if letter.isprintable() or letter in "\n\t"
        else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )
