"""Captioners that are asked in words share their question and a limit on proportions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from models.prompts.library import load_prompt
from models.protocols import CaptionSampling, Fingerprint

if TYPE_CHECKING:
    from PIL import Image

DEFAULT_PROMPT: Final = load_prompt("llava_caption", ())
"""Asked where `CaptionSampling.prompt` is empty, in process and through a server alike."""

MOST_ELONGATED: Final = 100
"""Largest ratio of an image's sides. LLaVA scales the short side to a few hundred pixels before
it cuts out the middle, so that a line of pixels would become a picture of gigabytes."""


def question(sampling: CaptionSampling) -> str:
    """The question about each image."""
    return sampling.prompt or DEFAULT_PROMPT.template


def prompt_fingerprint() -> Fingerprint:
    """Identity of the prompt that stands in for an empty one."""
    return DEFAULT_PROMPT.fingerprint


def check_proportions(image: Image.Image) -> None:
    """Refuse an image that cannot be scaled by its short side.

    Raises:
        ValueError: When one side is more than `MOST_ELONGATED` times the other.
    """
    width, height = image.size
    if max(width, height) > MOST_ELONGATED * min(width, height):
        raise ValueError(
            f"the image is {width}x{height}; its long side may be at most {MOST_ELONGATED} times "
            "the short one"
        )
