"""A small CLIP on disk, for tests of networks on it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.fakes.small_networks import write_clip

    return write_clip(tmp_path_factory.mktemp("clip"))
