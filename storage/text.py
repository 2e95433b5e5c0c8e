"""Foreign text as tables hold it: valid Unicode without characters that command a terminal."""

from __future__ import annotations

import re
from typing import Final

CONTROLS: Final = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]"
"""Control characters except tab and line feed, and those that turn the direction of writing."""

_CONTROL: Final = re.compile(CONTROLS)
_NOT_A_BYTE: Final = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Halves of surrogate pairs, except the halves that stand for a byte."""


def valid_text(raw: str) -> str:
    r"""Return foreign text as valid Unicode: bytes that are not are shown as ``\xff``.

    A file system gives such bytes as surrogates of their own (``surrogateescape``). Any other half
    of a surrogate pair, which JSON may hold, is shown as ``\ud800``. Control characters are shown
    too (`visible`).
    """
    if raw.isascii() and raw.isprintable():
        return raw
    whole = _NOT_A_BYTE.sub(lambda half: f"\\u{ord(half[0]):04x}", raw)
    whole = whole.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return visible(whole)


def visible(text: str) -> str:
    r"""Show control characters as ``\x1b`` or ``\u202e``; tabs and line feeds stay."""
    return _CONTROL.sub(lambda found: _escape(ord(found[0])), text)


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
