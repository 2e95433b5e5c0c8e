"""A small CLIP, loaded, for tests of what reads texts and images with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from models.encoders.spec import EncoderSpec

if TYPE_CHECKING:
    from models.encoders.open_clip import OpenClipEncoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> OpenClipEncoder:
    """On the CPU, with random weights and open_clip's own tokenizer."""
    from models.encoders.loading import load_encoder
    from tests.fakes.small_clip import write_small_clip

    folder = write_small_clip(tmp_path_factory.mktemp("clip"))
    return load_encoder(EncoderSpec(name=str(folder), device="cpu"))
