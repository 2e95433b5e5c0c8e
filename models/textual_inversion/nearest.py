"""The concepts that are nearest to images, by a backbone's joint space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from models.retrieval.fusion import unit
from models.textual_inversion.templates import TEMPLATES, filled

if TYPE_CHECKING:
    from models.protocols import FloatArray, ImageTextEncoder

_NAMES: Final = 2_048
_IMAGES: Final = 512


def concept_vectors(encoder: ImageTextEncoder, concepts: Sequence[str]) -> FloatArray:
    """Unit vectors (C, d) of concepts: the mean of the unit features of all templates."""
    parts = [np.zeros((0, encoder.dim), np.float32)]
    for start in range(0, len(concepts), _NAMES):
        names = concepts[start : start + _NAMES]
        texts = [filled(template, name) for name in names for template in TEMPLATES]
        features = unit(encoder.encode_texts(texts))
        parts.append(unit(features.reshape(len(names), len(TEMPLATES), -1).mean(axis=1)))
    return np.concatenate(parts).astype(np.float32)


def nearest_concepts(images: FloatArray, concepts: FloatArray, count: int) -> np.ndarray:
    """The rows of the `count` nearest concepts of each image, best first.

    Args:
        images: (B, d) image features.
        concepts: (C, d) unit vectors.
        count: How many; all where there are fewer.

    Returns:
        (B, min(count, C)) int64; of equal concepts the earlier one comes first.
    """
    from models.retrieval.search import products_of_each

    found = [np.zeros((0, min(count, len(concepts))), np.int64)]
    for start in range(0, len(images), _IMAGES):
        scores = products_of_each(unit(images[start : start + _IMAGES]), concepts)
        found.append(np.argsort(-scores, axis=1, kind="stable")[:, :count])
    return np.concatenate(found)
