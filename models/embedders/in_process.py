"""What embedders in this process share: batches, and failures that stand alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
import torch

from models.embedders.protocol import Embedded
from models.metering import Spent, current_meter, device_time

if TYPE_CHECKING:
    from models.protocols import FloatArray

Item = TypeVar("Item")

_FAILURES: Final = (RuntimeError, ValueError, TypeError, OSError, MemoryError)
"""Errors that a bad picture, an odd text or a full memory raises."""


def embed_in_batches(
    items: Iterable[Item], batch: int, width: int, embed: Callable[[Sequence[Item]], FloatArray]
) -> Embedded:
    """Vectors in the order of the items, which are taken a batch at a time.

    A batch that fails is halved until the items at fault stand alone; each of them has the reason
    of its failure, and the others are not affected.

    Args:
        items: What is embedded.
        batch: Most items at once.
        width: Width d of a vector.
        embed: Vectors (B, d) of some items.
    """
    vectors: list[FloatArray] = [np.zeros((0, width), np.float32)]
    reasons: list[str] = []
    stream = iter(items)
    while part := list(itertools.islice(stream, batch)):
        for made, why in _embed_or_split(part, width, embed):
            vectors.append(made)
            reasons += why
        current_meter().add(Spent(questions=len(part), calls=len(part)))
    return Embedded(np.concatenate(vectors), tuple(reasons))


def _embed_or_split(
    part: Sequence[Item], width: int, embed: Callable[[Sequence[Item]], FloatArray]
) -> list[tuple[FloatArray, list[str]]]:
    try:
        with device_time():
            made = embed(part)
        whole = [bool(np.isfinite(row).all()) for row in made]
        made[np.logical_not(whole)] = 0
        return [(made, ["" if good else "the vector is not finite" for good in whole])]
    except _FAILURES as failure:
        # Only the text is kept: the exception's traceback would hold the batch in memory.
        reason = f"{type(failure).__name__}: {str(failure).strip()[:300]}"
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if len(part) == 1:
        return [(np.zeros((1, width), np.float32), [reason])]
    half = len(part) // 2
    return [
        *_embed_or_split(part[:half], width, embed),
        *_embed_or_split(part[half:], width, embed),
    ]
