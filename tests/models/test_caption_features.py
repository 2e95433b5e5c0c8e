"""Mean caption features against a loop over images with the library's own padded encoding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest

from models.retrieval import caption_features
from models.retrieval.caption_features import CaptionMean, caption_means, iter_caption_means

if TYPE_CHECKING:
    from models.encoders.open_clip import OpenClipEncoder

CAPTIONS = [
    ["a red cat", "a cat", "a red cat"],
    ["two dogs on a very long wooden bench near the water"],
    ["a cat", "", "a dog and a cat with a ball", "a red cat"],
]


def naive(encoder: OpenClipEncoder, mean: CaptionMean) -> np.ndarray:
    import open_clip
    import torch

    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    rows = []
    with torch.inference_mode():
        for own in CAPTIONS:
            normalize = mean == "unit_mean"
            features = encoder.model.encode_text(tokenizer(own), normalize=normalize)
            rows.append(features.mean(dim=0).numpy())
    return np.stack(rows)


@pytest.mark.parametrize("mean", ["unit_mean", "raw_mean"])
def test_equals_a_padded_loop(encoder: OpenClipEncoder, mean: CaptionMean) -> None:
    got = caption_means(encoder, CAPTIONS, mean)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, naive(encoder, mean), atol=1e-6)


def test_each_string_is_encoded_once_per_block(encoder: OpenClipEncoder) -> None:
    seen: list[str] = []

    class Watched:
        dim = encoder.dim

        def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
            seen.append(str(len(texts)))
            return encoder.encode_texts(texts)

    caption_means(Watched(), CAPTIONS)
    assert seen == ["8"]
    distinct: list[int] = []
    original = encoder.text.encode_rows

    def counting(rows: Sequence[object]) -> np.ndarray:
        distinct.append(len(rows))
        return original(rows)

    encoder.text.encode_rows = counting
    try:
        caption_means(encoder, CAPTIONS)
    finally:
        del encoder.text.encode_rows
    assert distinct == [6 - 1]  # eight captions, five different ones


def test_streams_in_bounded_blocks(
    encoder: OpenClipEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caption_features, "CAPTIONS_PER_BLOCK", 4)
    taken: list[int] = []

    def stream() -> Iterator[tuple[object, list[str]]]:
        for index, own in enumerate(CAPTIONS):
            taken.append(index)
            yield index, own

    blocks = iter_caption_means(encoder, stream())
    keys, first = next(blocks)
    assert (keys, taken) == ([0, 1], [0, 1, 2])
    rest = list(blocks)
    assert [keys for keys, _ in rest] == [[2]]
    got = np.concatenate([first, *(block for _, block in rest)])
    np.testing.assert_allclose(got, naive(encoder, "unit_mean"), atol=1e-6)


def test_an_image_without_captions_is_an_error(encoder: OpenClipEncoder) -> None:
    with pytest.raises(ValueError, match="image 1 has no caption"):
        caption_means(encoder, [["a"], []])
    with pytest.raises(ValueError, match="unit_mean, raw_mean"):
        caption_means(encoder, [["a"]], "median")
    assert caption_means(encoder, []).shape == (0, 24)
