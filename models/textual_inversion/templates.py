"""Sentences that a pseudo token is put into while it is learned, and that concepts are named in.

SEARLE and PALAVRA take 24 short ones; these are our own.
"""

from __future__ import annotations

from typing import Final

from models.protocols import SplicedText

_SENTENCES: Final = (
    "a photo of {}",
    "a picture of {}",
    "an image of {}",
    "a photograph of {}",
    "a good photo of {}",
    "a clear picture of {}",
    "a close view of {}",
    "a bright photo of {}",
    "a dark photo of {}",
    "a small photo of {}",
    "a large photo of {}",
    "a cropped photo of {}",
    "a blurred photo of {}",
    "a plain photo of {}",
    "a recent picture of {}",
    "one photo of {}",
    "my photo of {}",
    "the photo of {}",
    "this is {}",
    "there is {}",
    "here you see {}",
    "a photo that shows {}",
    "{} in a photo",
    "{} as it looks",
)

TEMPLATES: Final = tuple(
    SplicedText(*(part.strip() for part in sentence.split("{}"))) for sentence in _SENTENCES
)
"""What stands before and behind the token in each sentence."""


def filled(template: SplicedText, words: str) -> str:
    """A template with words in the token's place."""
    return " ".join(part for part in (template.before, words.strip(), template.after) if part)
