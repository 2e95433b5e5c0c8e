"""Preprocessing belongs to the method: CLIP's own for LinCIR and Pic2Word, TargetPad for others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from flows.profiles import ProfileError, resolve_profile
from models.retrieval.methods import METHODS
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.methods import settings_of
from tasks.planner import gallery_stages
from tasks.settings import Profile
from tasks.stages.caption_features import CaptionFeatureStage
from tests.fakes.filled_tables import fill
from tests.fakes.small_clip import CONFIG, write_small_clip

if TYPE_CHECKING:
    import torch

SIZES = ((90, 40), (40, 90), (50, 50), (55, 50), (140, 100))
PLAIN = {"lincir", "pic2word"}


@pytest.fixture
def profile(tmp_path: Path) -> Profile:
    """A profile of long pictures and a small CLIP, with the defaults of production."""
    (tmp_path / "clip").mkdir()
    write_small_clip(tmp_path / "clip")
    (tmp_path / "pictures").mkdir()
    random = np.random.default_rng(0)
    for place, (width, height) in enumerate(SIZES):
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{place}.png")
    made = production(tmp_path)
    ingest(Location(made.root), tmp_path / "pictures", "long")
    return made


def production(folder: Path, **changed: Any) -> Profile:
    own = {
        "root": str(folder / "tables"),
        "encoder.name": str(folder / "clip"),
        "encoder.pretrained": "",
        "encoder.device": "cpu",
        "mapping.searle": "a.pt",
        "mapping.pic2word": "b.pt",
    }
    return resolve_profile("production", own | changed)


def released(image: Image.Image, padded: bool) -> torch.Tensor:
    """The released programs' transform, by torchvision alone: SEARLE's TargetPad(1.25), CLIP's."""
    from torchvision.transforms import v2

    if padded and max(image.size) / min(image.size) >= 1.25:
        side = max(image.size) / 1.25
        across, down = (max(int((side - each) / 2), 0) for each in image.size)
        image = v2.functional.pad(image, [across, down, across, down], 0, "constant")
    steps = [
        v2.Resize(32, interpolation=v2.InterpolationMode.BICUBIC),
        v2.CenterCrop(32),
        v2.PILToTensor(),
    ]
    pixels: torch.Tensor = v2.Compose(steps)(image).float() / 255
    pixels = v2.functional.normalize(pixels, **CONFIG["preprocess_cfg"])
    return pixels


def test_gallery_features_are_those_of_the_released_programs(
    profile: Profile, tmp_path: Path
) -> None:
    import hashlib

    import open_clip
    import torch

    model, *_ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'clip'}")
    model.eval()
    files = sorted((tmp_path / "pictures").iterdir())
    ids = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    found = {}
    for method in ("lincir", "searle", "cvsi", "ldre"):
        stage = gallery_stages(profile, "long", method)["image"]
        fill(stage)
        found[method] = stage.table().vectors(ids)
        pictures = [released(Image.open(file), method not in PLAIN) for file in files]
        with torch.no_grad():
            expected = model.encode_image(torch.stack(pictures)).numpy()
        np.testing.assert_allclose(found[method], expected, atol=1e-6)
    differs = np.abs(found["lincir"] - found["searle"]).max(axis=1) > 1e-3
    assert differs.tolist() == [max(size) / min(size) >= 1.25 for size in SIZES]


def test_methods_of_equal_preprocessing_share_their_features(profile: Profile) -> None:
    def key(method: str, profile: Profile = profile) -> str:
        return gallery_stages(profile, "long", method)["image"].spec_key

    padded = {key(name) for name in ("image-only", "cirevl", "ldre", "searle", "cvsi")}
    plain = {key(name) for name in sorted(PLAIN)}
    assert (len(padded), len(plain), len(padded | plain)) == (1, 1, 2)


@pytest.mark.parametrize("chosen", ["clip", "targetpad"])
def test_what_a_profile_sets_holds_for_all_methods(
    profile: Profile, tmp_path: Path, chosen: str
) -> None:
    asked = production(tmp_path, **{"cvsi.preprocess": chosen})
    keys = {gallery_stages(asked, "long", name)["image"].spec_key for name in ("lincir", "cvsi")}
    own = gallery_stages(profile, "long", "lincir" if chosen == "clip" else "cvsi")
    assert keys == {own["image"].spec_key}


def test_every_method_says_what_it_does() -> None:
    default = resolve_profile("production").cvsi
    modes = {name: settings_of(name, default).preprocess for name in METHODS}
    own = {"compodiff", "covr", "case", "instructpix2pix"}  # CLIP's own, or a network's
    assert {name for name, mode in modes.items() if mode == "clip"} == PLAIN | own
    assert set(modes.values()) == {"clip", "targetpad"}


def test_a_setting_without_effect_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"--set: encoder\.preprocess=clip.*set cvsi\.prepro"):
        resolve_profile("production", {"encoder.preprocess": "clip"})
    both = {"encoder.preprocess": "clip", "cvsi.preprocess": "clip"}
    assert resolve_profile("production", both).query_encoder.preprocess == "clip"


def test_the_gallerys_precision_is_that_of_its_image_features_alone(tmp_path: Path) -> None:
    """D10: the released code computes gallery images in half precision, all texts in full."""
    (tmp_path / "clip").mkdir()
    write_small_clip(tmp_path / "clip")
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "pictures" / "a.png")
    half = production(tmp_path, **{"cvsi.gallery_dtype": "bf16"})
    ingest(Location(half.root), tmp_path / "pictures", "any")
    stages = gallery_stages(half, "any")
    captions = stages["captions"]
    assert isinstance(captions, CaptionFeatureStage)
    assert captions.encoder.precision == "fp32"
    assert stages["image"].identity()["encoder"]["dtype"] == "bf16"
