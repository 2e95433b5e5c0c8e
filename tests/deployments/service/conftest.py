"""A small root with one gallery that has all features of CVSI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.filled_tables import fill

if TYPE_CHECKING:
    from tasks.settings import Profile

IMAGES = 9


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Some drawn pictures."""
    from tests.fakes.drawn import draw_folder

    return draw_folder(tmp_path_factory.mktemp("drawn"), IMAGES, seed=77)


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory, drawn: list[Path]) -> Profile:
    """A profile whose root holds the gallery `drawn`, and `bare` without features of its own."""
    from storage.collections.collection import ingest
    from storage.locations.location import Location
    from tasks.planner import gallery_stages
    from tasks.stages.caption_features import CaptionFeatureStage
    from tests.fakes.drawn import draw_folder, small_profile

    own = small_profile(tmp_path_factory.mktemp("root"), captions=2, shard=5)
    ingest(Location(own.root), drawn[0].parent, "drawn")
    other = draw_folder(tmp_path_factory.mktemp("bare"), 1, seed=78)
    ingest(Location(own.root), other[0].parent, "bare")
    stages = gallery_stages(own, "drawn")
    captions = stages["captions"]
    assert isinstance(captions, CaptionFeatureStage)
    for stage in (stages["image"], captions.captions, captions):
        fill(stage)
    return own
