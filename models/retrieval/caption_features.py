"""Mean caption features: t_c of CVSI's equation 5, and q_m of equation 7.

Fifteen captions an image make millions of short texts. They are encoded flat: captions of many
images together, each distinct one once, sorted by length and cropped (see
`models.encoders.text_tower`), and averaged image by image afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import numpy as np

from models.retrieval.fusion import unit

if TYPE_CHECKING:
    from models.protocols import FloatArray, ImageTextEncoder

CaptionMean: TypeAlias = Literal["unit_mean", "raw_mean"]
CAPTION_MEANS: Final[tuple[str, ...]] = get_args(CaptionMean)

CAPTIONS_PER_BLOCK: Final = 16_384
"""Captions in memory at a time: 50 MB of features at a width of 768."""


def caption_means(
    encoder: ImageTextEncoder, captions: Sequence[Sequence[str]], mean: CaptionMean = "unit_mean"
) -> FloatArray:
    """One vector per image from its captions.

    Args:
        encoder: Encodes texts.
        captions: For each image its captions, at least one.
        mean: `unit_mean` averages unit vectors and leaves the mean at its length (renormalising,
            difference D3, is fusion's business). `raw_mean` averages features as encoded.

    Returns:
        (len(captions), d) float32.
    """
    blocks = [block for _, block in iter_caption_means(encoder, enumerate(captions), mean)]
    if not blocks:
        return np.zeros((0, encoder.dim), dtype=np.float32)
    return np.concatenate(blocks)


def caption_means_or_zeros(
    encoder: ImageTextEncoder, captions: Sequence[Sequence[str]], mean: CaptionMean = "unit_mean"
) -> FloatArray:
    """As `caption_means`; an image without captions gets the zero vector."""
    rows = [row for row, own in enumerate(captions) if own]
    means = np.zeros((len(captions), encoder.dim), np.float32)
    means[rows] = caption_means(encoder, [captions[row] for row in rows], mean)
    return means


def iter_caption_means(
    encoder: ImageTextEncoder,
    captions: Iterable[tuple[object, Sequence[str]]],
    mean: CaptionMean = "unit_mean",
) -> Iterator[tuple[list[object], FloatArray]]:
    """As `caption_means` over a stream of (key, captions), in bounded memory.

    Yields:
        Keys in order, and their (len(keys), d) means.
    """
    if mean not in CAPTION_MEANS:
        raise ValueError(f"mean is {mean!r}; one of {', '.join(CAPTION_MEANS)}")
    keys: list[object] = []
    texts: list[str] = []
    counts: list[int] = []
    for key, own in captions:
        if not own:
            raise ValueError(f"image {key} has no caption to average; leave it out beforehand")
        if texts and len(texts) + len(own) > CAPTIONS_PER_BLOCK:
            yield keys, _segment_means(caption_features(encoder, texts, mean), counts)
            keys, texts, counts = [], [], []
        keys.append(key)
        texts.extend(own)
        counts.append(len(own))
    if texts:
        yield keys, _segment_means(caption_features(encoder, texts, mean), counts)


def caption_vectors(
    encoder: ImageTextEncoder, captions: Sequence[Sequence[str]], width: int
) -> FloatArray:
    """A vector of each caption, as encoded.

    Args:
        encoder: Encodes texts.
        captions: For each of B images its captions, at most `width`.
        width: Captions of an image, N.

    Returns:
        (B, N, d) float32; zero vectors follow an image's last caption.
    """
    made = np.zeros((len(captions), width, encoder.dim), np.float32)
    held = np.arange(width) < np.array([len(own) for own in captions])[:, None]
    if held.any():
        made[held] = encoder.encode_texts([text for own in captions for text in own])
    return made


def means_of_first(
    vectors: FloatArray, counts: Sequence[int], first: int, mean: CaptionMean = "unit_mean"
) -> FloatArray:
    """The means of some images' first captions, from `caption_vectors`: nothing is encoded.

    Args:
        vectors: (H, N, d), as encoded, of the H images that have captions.
        counts: (B,) captions of each image; 0 where it has none.
        first: Captions of an image that count, at most; 0: all.
        mean: As in `caption_means`.

    Returns:
        (B, d) float32, as `caption_means_or_zeros` of these captions.
    """
    kept = np.minimum(counts, first or vectors.shape[1])
    held = kept > 0
    means = np.zeros((len(kept), vectors.shape[2]), np.float32)
    if held.any():
        rows = vectors[np.arange(vectors.shape[1]) < kept[held, None]]
        means[held] = _segment_means(
            unit(rows) if mean == "unit_mean" else rows, kept[held].tolist()
        )
    return means


def caption_features(
    encoder: ImageTextEncoder, texts: Sequence[str], mean: CaptionMean = "unit_mean"
) -> FloatArray:
    """Features as they enter the mean: unit vectors, or raw for `raw_mean`."""
    features = encoder.encode_texts(texts)
    return unit(features) if mean == "unit_mean" else features


def _segment_means(features: FloatArray, counts: Sequence[int]) -> FloatArray:
    """Mean of consecutive rows: features (sum(counts), d) -> (len(counts), d)."""
    sizes = np.asarray(counts)
    starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
    sums = np.add.reduceat(features, starts, axis=0, dtype=np.float64)
    return (sums / sizes[:, None]).astype(np.float32)
