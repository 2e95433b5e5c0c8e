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

    Doubles = npt.NDArray[np.float64]

_QUERIES_PER_BLOCK: Final = 8


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
    gallery: FloatArray,
    settings: LdreSettings = LDRE,
) -> FloatArray:
    """Query vectors of LDRE.

    Args:
        edited: (Q, N, d) one feature per edited caption.
        unedited: (Q, N, d) one feature per caption of the reference, in the same order.
        gallery: (G, d) image features.
        settings: Constants of the method.

    Returns:
        (Q, d) weighted sums, not normalised.
    """
    if edited.shape != unedited.shape or edited.shape[-1] != gallery.shape[-1]:
        raise ValueError(
            f"edited captions {edited.shape}, captions {unedited.shape} and gallery "
            f"{gallery.shape} do not fit: (Q, N, d), (Q, N, d), (G, d)"
        )
    # Dividing by the temperature multiplies rounding, so that single precision is not enough.
    after, before, images = (unit(v.astype(np.float64)) for v in (edited, unedited, gallery))
    scores = _scores(after, before, images, settings.top)
    if settings.scope == "global":
        scores = np.broadcast_to(scores.sum(axis=0, keepdims=True), scores.shape)
    weights = _softmax(scores, settings.temperature)
    return np.einsum("qn,qnd->qd", weights, after).astype(np.float32)


def _scores(edited: Doubles, unedited: Doubles, gallery: Doubles, top: int) -> Doubles:
    """s_i of every caption (Q, N), in blocks of queries so that memory stays bounded."""
    top = min(top, len(gallery))
    scores = np.empty(edited.shape[:2])
    for start in range(0, len(edited), _QUERIES_PER_BLOCK):
        block = slice(start, start + _QUERIES_PER_BLOCK)
        away = np.maximum((unedited[block] - edited[block]) @ gallery.T, 0.0)
        scores[block] = np.partition(away, -top, axis=-1)[..., -top:].sum(axis=-1)
    return scores


def _softmax(scores: Doubles, temperature: float) -> Doubles:
    """Weights (Q, N); a query whose captions all score 0 weighs them alike."""
    largest = scores.max(axis=1, keepdims=True)
    logits = scores / np.where(largest > 0, largest, 1.0) / temperature
    exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponential / exponential.sum(axis=1, keepdims=True)
