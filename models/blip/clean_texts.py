"""Texts as BLIP's data code cleans them before they are tokenised."""

from __future__ import annotations

import re
from typing import Final

MOST_WORDS: Final = 30

_TAKEN_OUT: Final = re.compile(r"[.!\"()*#:;~]")


def cleaned(text: str, most_words: int = MOST_WORDS) -> str:
    """Lower case, punctuation as spaces, single spaces, and no more than so many words."""
    return " ".join(_TAKEN_OUT.sub(" ", text.lower()).split()[:most_words])
