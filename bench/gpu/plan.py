"""Which part may take how long: pure arithmetic on seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

GRACE: Final = 1.5
"""A part that has not ended after this many times its share is stopped."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the benchmark.

    Attributes:
        name: For `--parts`.
        what: The work, in words.
        seconds: Its share where all parts together have `TOTAL` seconds.
        least: Seconds below which it is not begun: start, making weights, a first measurement.
        memory: Bytes of a GPU that it needs at full size.
    """

    name: str
    what: str
    seconds: float
    least: float
    memory: float = 0.0


GIB: Final = 2.0**30

PARTS: Final = (
    Part("limits", "the card's matrix products and copies", 25, 10, 2 * GIB),
    Part("ViT-B-32", "image and text embedding", 65, 20, 8 * GIB),
    Part("ViT-L-14", "image and text embedding", 85, 20, 16 * GIB),
    Part("ViT-bigG-14", "image and text embedding", 60, 40, 24 * GIB),
    Part("captions", "15 captions an image, BLIP-2 OPT-2.7b", 60, 30, 20 * GIB),
    Part("edits", "edited captions, LLaMA-7B's shape", 50, 30, 40 * GIB),
    Part("search", "1,000 queries over 10 M x 768", 35, 25, 2 * GIB),
    Part("lincir", "training steps of LinCIR", 30, 15, 8 * GIB),
    Part("instructcir", "training steps of InstructCIR", 70, 35, 30 * GIB),
)
"""In the order in which they run: what may be cut short by its compiler comes last."""

TOTAL: Final = sum(part.seconds for part in PARTS)


def share(part: Part, later: Sequence[Part], left: float) -> float:
    """Seconds of a part: what is left, divided by the shares of it and of those behind it.

    What a part leaves over is the others', and what it takes too much they lose.
    """
    return left * part.seconds / (part.seconds + sum(other.seconds for other in later))


def refusal(part: Part, allowed: float, small: bool) -> str:
    """Why a part cannot begin with so many seconds, or an empty text."""
    if small or allowed >= part.least:
        return ""
    minutes = part.least / part.seconds * TOTAL / 60
    return (
        f"{max(0.0, allowed):.0f} s are left for it, and it needs {part.least:.0f} s; "
        f"give more --minutes ({minutes:.0f} suffice for all), or name it in --parts"
    )


def stop_after(allowed: float, left: float) -> float:
    """Seconds after which a part's process is stopped."""
    return min(GRACE * allowed, left)
