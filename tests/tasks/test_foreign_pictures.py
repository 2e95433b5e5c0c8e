"""Small models that know drawn shapes alone say so on photographs, and stay silent on shapes."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.profiles import resolve_profile
from models.captioners.blip2 import Blip2Settings
from models.encoders.drawn_pictures import FEW, look_drawn, share_of_colours
from models.encoders.spec import EncoderSpec
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.foreign_pictures import SAMPLE, only_drawn, warning_for
from tests.fakes.drawn import draw_folder


def test_the_share_of_colours_is_counted_by_hand() -> None:
    from PIL import Image

    plain = Image.new("RGB", (96, 96), (250, 10, 10))
    assert share_of_colours(plain) == 1.0
    stripes = Image.new("RGB", (96, 96))  # eight levels of grey, each an eighth of the picture
    for step in range(8):
        stripes.paste((step * 32,) * 3, (step * 12, 0, step * 12 + 12, 96))
    assert share_of_colours(stripes) == pytest.approx(6 / 8)
    assert look_drawn([plain, stripes])
    assert not look_drawn([plain, stripes, stripes])


def test_drawn_pictures_and_photographs_lie_apart(shared_data: Path, tmp_path: Path) -> None:
    from PIL import Image

    drawn = [share_of_colours(Image.open(p)) for p in draw_folder(tmp_path, 60, seed=9)]
    assert min(drawn) >= FEW
    photographs = sorted((shared_data / "clothing" / "images").rglob("*.jpg"))[::10]
    shares = [share_of_colours(Image.open(p)) for p in photographs]
    assert sum(share >= FEW for share in shares) < 0.05 * len(shares)


def test_photographs_are_named_once_and_shapes_never(shared_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    draw_folder(tmp_path / "shapes", SAMPLE, seed=4)
    ingest(Location(str(root)), str(tmp_path / "shapes"), "shapes")
    ingest(Location(str(root)), str(shared_data / "clothing" / "images" / "hat"), "hats")
    tiny = resolve_profile("tiny", {"root": str(root)})
    assert warning_for(tiny, "shapes") == ""
    said = warning_for(tiny, "hats")
    assert "the pictures of hats are not drawn shapes" in said
    assert "encoder, captioner, text generator" in said
    assert "small" in said
    assert "the pictures of hats are" in warning_for(tiny, "shapes", "hats")
    real = resolve_profile("production", {"root": str(root)})
    assert warning_for(real, "hats") == ""


def test_models_of_others_are_not_named() -> None:
    tiny = resolve_profile("tiny")
    engines = {
        "encoder": EncoderSpec(name="ViT-B-32", pretrained="openai"),
        "captioner": Blip2Settings(model="Salesforce/blip2-opt-2.7b"),
        "text generator": tiny.generator,
    }
    assert only_drawn(engines) == ["text generator"]
