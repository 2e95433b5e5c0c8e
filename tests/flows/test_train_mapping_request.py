"""What `train-mapping` refuses for the systems that learn from images, before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from flows.requests.train_mapping import train_mapping
from storage.collections.collection import ingest
from storage.collections.known import UnknownCollection
from storage.locations.location import Location
from tests.fakes.pictures import jpeg


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("mapping")
    (folder / "images").mkdir()
    (folder / "images" / "0.jpg").write_bytes(jpeg(0))
    ingest(Location(str(folder / "root")), folder / "images", "photos")
    return str(folder / "root")


def asked(root: str, settings: dict[str, Any] | None = None, **parameters: Any) -> Any:
    return train_mapping(settings={"root": root, **(settings or {})}, **parameters)


def test_each_system_has_its_own_choices(root: str) -> None:
    found = asked(
        root,
        system="searle",
        collection="photos",
        training={"max_steps": 5},
        network={"concepts": 7},
    ).inversion
    assert (found.system.name, found.training.max_steps, found.network.concepts) == ("searle", 5, 7)
    assert found.training.batch_size == 256  # the published one
    assert asked(root, collection="photos").inversion is None


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"system": "pic2word"}, "learns from images; give collection=NAME"),
        ({"system": "pic2word", "collection": "none"}, "no collection 'none'"),
        ({"system": "searle", "collection": "photos", "steps": 5}, "steps belong to system=lincir"),
        (
            {"collection": "photos", "training": {"max_steps": 5}},
            "belong to the systems that learn",
        ),
        (
            {"system": "pic2word", "collection": "photos", "network": {"hiden": 3}},
            "unknown setting of network 'hiden'; did you mean 'hidden'",
        ),
        (
            {
                "system": "searle",
                "collection": "photos",
                "settings": {"inversion.concepts": ""},
            },
            "set inversion.concepts=FILE",
        ),
        (
            {
                "system": "palavra",
                "collection": "photos",
                "settings": {"inversion.phrases": "/nowhere.json"},
            },
            "file of phrases /nowhere.json does not exist",
        ),
        (
            {
                "system": "searle",
                "collection": "photos",
                "settings": {"inversion.tokens": "0" * 20},
            },
            "is not the key of imported tokens",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(
    root: str, parameters: dict[str, Any], said: str
) -> None:
    with pytest.raises((ValueError, UnknownCollection), match=said):
        asked(root, **parameters)


def test_a_collection_without_captions_is_refused_with_what_makes_them(root: str) -> None:
    from tasks.profile_stages import caption_stage
    from tasks.training.mapping import cached_captions

    stage = caption_stage(asked(root, collection="photos").profile, "photos")
    said = (
        r"photos has no captions by blip2 .* yet: make them first \(cirflow run backfill-captions"
    )
    with pytest.raises(ValueError, match=said):
        cached_captions(stage)
