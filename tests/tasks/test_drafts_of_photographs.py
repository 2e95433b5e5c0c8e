"""Real photographs at a reduced size: features near those of whole pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.fakes.drawn import small_profile


def test_drafts_of_real_photographs_have_nearly_the_same_features(
    shared_data: Path, tmp_path: Path
) -> None:
    from tasks.engines import load_encoder
    from tasks.settings import PictureSettings
    from tasks.stages.decoded import Decoding

    files = sorted((shared_data / "clothing" / "images").rglob("*.jpg"))[::30]
    data = [file.read_bytes() for file in files]
    encoder = load_encoder(small_profile(tmp_path).encoder)
    vectors, reduced = {}, {}
    for draft in (0, 1):
        images = Decoding(
            data, lambda count: None, PictureSettings(draft=draft), encoder.preprocess.side
        )
        vectors[draft] = encoder.encode_images(images)
        reduced[draft] = [min(image.size) for image in images]
    smaller = [one < whole for one, whole in zip(reduced[1], reduced[0], strict=True)]
    assert 5 < sum(smaller) < len(files)  # those of at least twice the 96 pixels that are needed
    assert min(reduced[1]) >= min(96, *reduced[0])
    lengths = np.linalg.norm(vectors[0], axis=1) * np.linalg.norm(vectors[1], axis=1)
    cosines = (vectors[0] * vectors[1]).sum(axis=1) / lengths
    assert 0.98 < cosines.min() < 1
    np.testing.assert_array_equal(cosines[~np.array(smaller)].round(5), 1)
