"""Sets of images and of phrases for each concept, by which a PALAVRA-style network learns.

No image is labelled: it belongs to the concept that is nearest to it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from models.textual_inversion.nearest import nearest_concepts

if TYPE_CHECKING:
    from models.protocols import FloatArray, ImageTextEncoder


def concepts_of(images: FloatArray, concepts: FloatArray) -> np.ndarray[Any, Any]:
    """The number of the concept (B,) that each image (B, d) belongs to."""
    return nearest_concepts(images, concepts, 1)[:, 0]


def concept_sets(
    encoder: ImageTextEncoder,
    images: FloatArray,
    captions: FloatArray,
    own: np.ndarray[Any, Any],
    phrases: Sequence[Sequence[str]],
    size: int,
) -> Mapping[str, np.ndarray[Any, Any]]:
    """Arrays with a row for each concept that has an image.

    Args:
        encoder: Encodes phrases.
        images: (B, d).
        captions: (B, d) features of the images' captions.
        own: (B,) number of each image's concept.
        phrases: Of each concept.
        size: M, members of a row; fewer are repeated in turn, and the first of more are taken.

    Returns:
        `concepts` (C,), their numbers in an order of chance; `images`, `captions` and `texts`
        (C, M, d).
    """
    numbers = np.random.default_rng(0).permutation(np.unique(own))
    of_each = [np.flatnonzero(own == number)[:size] for number in numbers]
    members = np.stack([np.resize(rows, size) for rows in of_each])
    texts = [phrases[number][:size] for number in numbers.tolist()]
    features = encoder.encode_texts([text for each in texts for text in each])
    starts = np.cumsum([0, *(len(each) for each in texts)])
    places = np.stack([np.resize(np.arange(a, b), size) for a, b in itertools.pairwise(starts)])
    return {
        "concepts": numbers,
        "images": images[members],
        "captions": captions[members],
        "texts": features[places],
    }
