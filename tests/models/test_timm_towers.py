"""Image towers of timm's (EVA, ConvNeXt): sizes, means and features against open_clip."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from PIL import Image

from models.encoders.spec import EncoderSpec

TOWERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "EVA02": {
        "image_size": 224,
        "timm_model_name": "eva02_tiny_patch14_224",
        "timm_pool": "token",
        "timm_proj": None,
    },
    "ConvNeXt": {
        "image_size": 96,
        "timm_model_name": "test_convnext",
        "timm_pool": "",
        "timm_proj": "linear",
    },
}
"""As open_clip configures them, with the smallest networks of their kinds."""


@pytest.fixture(scope="module", params=TOWERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.fakes.newer_towers import write_newer

    return write_newer(tmp_path_factory.mktemp("clip"), "PE-Core", TOWERS[request.param])


def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    shapes = [(300, 180, 3), (90, 250, 3)]
    return [Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]


def test_pictures_equal_open_clip(folder: Path) -> None:
    import open_clip
    import torch

    from models.encoders.loading import load_encoder

    theirs, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    encoder = load_encoder(EncoderSpec(name=str(folder), preprocess="clip", device="cpu"))
    assert encoder.fingerprint["preprocess"]["mean"] == [0.5, 0.5, 0.5]
    with torch.inference_mode():
        pixels = torch.stack([transform(each) for each in pictures()])
        expected = theirs.eval().encode_image(pixels).numpy()
    np.testing.assert_allclose(encoder.encode_images(pictures()), expected, rtol=1e-5, atol=1e-5)


def test_a_network_on_it_is_saved_and_loaded(folder: Path, tmp_path: Path) -> None:
    import torch

    from models.composed.checkpoint import load_composed, save_composed
    from models.composed.clip4cir_network import build_sum
    from models.composed.clip4cir_settings import SumSettings
    from models.encoders.loading import load_encoder

    spec = EncoderSpec(name=str(folder), preprocess="clip", device="cpu")
    own, network = load_encoder(spec), build_sum(spec, SumSettings(), seed=0).eval()
    texts = ["a cat that is red", "the dog"]
    save_composed(tmp_path / "n", "clip4cir-sum", network, SumSettings(), base={}, provenance={})
    loaded = load_composed(tmp_path / "n").network
    size = own.preprocess.side
    pixels = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = own.model.encode_image(pixels) + own.model.encode_text(own.tokenize(texts))
        for each in (network, loaded):
            torch.testing.assert_close(each.query(pixels, each.tokenised(texts)), expected)


@pytest.mark.parametrize(
    ("name", "tag", "size", "mean", "resized"),
    [
        ("EVA02-L-14-336", "merged2b_s6b_b61k", 336, 0.48145466, "shortest"),
        ("convnext_base_w_320", "laion_aesthetic_s13b_b82k", 320, 0.48145466, "shortest"),
        ("ViT-SO400M-14-SigLIP2-378", "webli", 378, 0.5, "squash"),
        ("PE-Core-L-14-336", "meta", 336, 0.5, "squash"),
        ("MobileCLIP2-S0", "dfndr2b", 256, 0.0, "shortest"),
        ("MobileCLIP2-S4", "dfndr2b", 256, 0.48145466, "shortest"),
        ("ViT-H-14-worldwide-378", "metaclip2_worldwide", 378, 0.48145466, "squash"),
    ],
)
def test_a_tag_says_how_pictures_are_prepared(
    name: str, tag: str, size: int, mean: float, resized: str
) -> None:
    """By the model cards of the weights."""
    from models.encoders.backbone_files import preprocess_settings

    found = preprocess_settings(EncoderSpec(name=name, pretrained=tag))
    assert (found["size"], found["mean"][0], found["resize_mode"]) == ((size, size), mean, resized)


@pytest.mark.parametrize(
    ("name", "joint", "token"),
    [("ViT-gopt-16-SigLIP2-256", 1536, 1152), ("PE-Core-B-16", 1024, 1024), ("RN50", 1024, 512)],
)
def test_tokens_have_the_width_of_words_and_not_of_features(
    name: str, joint: int, token: int
) -> None:
    from models.encoders.backbone_files import architecture
    from models.encoders.facts import token_width

    spec = EncoderSpec(name=name, pretrained="random:0")
    assert (architecture(spec)["embed_dim"], token_width(spec)) == (joint, token)
