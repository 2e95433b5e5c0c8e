"""LDRE's ensemble of edited captions: the one method that is not a fixed weighted sum.

LDRE (Yang et al., SIGIR 2024) trusts an edited caption the more, the further it pulls the query
away from the images that the unedited caption finds. With edited captions f_i, unedited
captions b_i and gallery g, all of length one:

    D_i[k] = max(0, b_i . g_k - f_i . g_k)
    s_i    = sum of the 5 largest D_i[k]
    w      = softmax_i( (s_i / max_j s_j) / 0.04 )
    q      = sum_i w_i f_i

The released code sums s_i over the whole query set, so that the answer to one query depends on
the other queries; `scope="global"` does that, and the default weighs each query on its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from pydantic import Field

from models.retrieval.fusion import unit
from models.settings import Settings

if TYPE_CHECKING:
    import numpy.typing as npt

    from models.protocols import FloatArray
    from models.retrieval.gallery import Rows

    Doubles = npt.NDArray[np.float64]

_QUERIES_PER_BLOCK: Final = 8
_IMAGES_PER_BLOCK: Final = 16_384


class LdreSettings(Settings):
    """How LDRE weighs the edited captions of a query."""

    scope: Literal["query", "global"] = "query"
    """`query`: each query's captions by their own scores. `global`: one weight for the i-th caption
    of all queries, as in the released code."""
    top: int = Field(5, ge=1)
    """How many of the largest differences a score sums."""
    temperature: float = Field(0.04, gt=0)
    """Softmax temperature of the weights."""

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What changes a query vector; in single precision weights were off by up to 1e-5."""
        return {"precision": "float64", **self.model_dump(exclude_defaults=True)}


LDRE: Final = LdreSettings()
"""The method's constants, each query on its own."""


def ldre_queries(
    edited: FloatArray,
    unedited: FloatArray,
    gallery: FloatArray | Rows,
    settings: LdreSettings = LDRE,
) -> FloatArray:
    """Query vectors of LDRE.

    Args:
        edited: (Q, N, d) one feature per edited caption.
        unedited: (Q, N, d) one feature per caption of the reference, in the same order.
        gallery: (G, d) image features, read in blocks.
        settings: Constants of the method.

    Returns:
        (Q, d) weighted sums, not normalised.
    """
    width = gallery[:1].shape[-1]
    if edited.shape != unedited.shape or edited.shape[-1] != width:
        raise ValueError(
            f"edited captions {edited.shape}, captions {unedited.shape} and gallery "
            f"{(len(gallery), width)} do not fit: (Q, N, d), (Q, N, d), (G, d)"
        )
    # Dividing by the temperature multiplies rounding, so that single precision is not enough.
    after, before = (unit(v.astype(np.float64)) for v in (edited, unedited))
    scores = _scores(after, before, gallery, settings.top)
    if settings.scope == "global":
        scores = np.broadcast_to(scores.sum(axis=0, keepdims=True), scores.shape)
    weights = _softmax(scores, settings.temperature)
    return np.einsum("qn,qnd->qd", weights, after).astype(np.float32)


def _scores(edited: Doubles, unedited: Doubles, gallery: FloatArray | Rows, top: int) -> Doubles:
    """s_i of every caption (Q, N), in blocks of images and queries so that memory stays bounded."""
    best = np.empty((*edited.shape[:2], 0))
    for first in range(0, len(gallery), _IMAGES_PER_BLOCK):
        images = unit(gallery[first : first + _IMAGES_PER_BLOCK].astype(np.float64))
        found = np.empty((*best.shape[:2], min(top, len(images))))
        for start in range(0, len(edited), _QUERIES_PER_BLOCK):
            block = slice(start, start + _QUERIES_PER_BLOCK)
            away = np.maximum((unedited[block] - edited[block]) @ images.T, 0.0)
            found[block] = _largest(away, top)
        best = _largest(np.concatenate([best, found], axis=-1), top)
    return best.sum(axis=-1)


def _largest(values: Doubles, top: int) -> Doubles:
    """The largest ones along the last axis, in any order; all where they are fewer."""
    if values.shape[-1] <= top:
        return values
    return np.partition(values, -top, axis=-1)[..., -top:]


def _softmax(scores: Doubles, temperature: float) -> Doubles:
    """Weights (Q, N); a query whose captions all score 0 weighs them alike."""
    largest = scores.max(axis=1, keepdims=True)
    logits = scores / np.where(largest > 0, largest, 1.0) / temperature
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponential / exponential.sum(axis=1, keepdims=True)
