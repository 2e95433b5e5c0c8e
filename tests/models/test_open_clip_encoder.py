"""Encoders against open_clip itself, and backbones that must be refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.encoders import backbone_files
from models.encoders.backbone_files import EncoderNotFound
from models.encoders.facts import encoder_facts
from models.encoders.spec import EncoderSpec, schema_and_place
from models.protocols import ImageTextEncoder, SplicedText

TEXTS = [
    "a photo of a cat",
    "",
    "word " * 120,
    "it's 5 o'clock & two $ dogs, <p>",
    "a photo of a cat",
    "x",
]


def pictures(count: int = 3) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [
        Image.fromarray(random.integers(0, 256, (40 + 9 * i, 50, 3), dtype=np.uint8))
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.fakes.small_clip import write_small_clip

    return write_small_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def fewer_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Named architectures with their own widths and two layers a tower instead of twelve."""
    import copy

    from open_clip import factory

    for name in ("ViT-B-32", "ViT-B-32-quickgelu"):
        config = copy.deepcopy(factory._MODEL_CONFIGS[name])
        config["vision_cfg"]["layers"] = config["text_cfg"]["layers"] = 2
        monkeypatch.setitem(factory._MODEL_CONFIGS, name, config)


def test_local_directory_equals_open_clip(small: Path) -> None:
    import open_clip
    import torch

    from models.encoders.loading import load_encoder

    reference, _, transform = open_clip.create_model_and_transforms(f"local-dir:{small}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{small}")
    reference.eval()
    encoder = load_encoder(
        EncoderSpec(name=str(small), preprocess="clip", image_batch=2, device="cpu")
    )
    with torch.inference_mode():
        texts = reference.encode_text(tokenizer(TEXTS)).numpy()
        images = reference.encode_image(torch.stack([transform(p) for p in pictures()])).numpy()
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), texts, atol=2e-6)
    np.testing.assert_allclose(encoder.encode_images(pictures()), images, atol=2e-6)
    assert isinstance(encoder, ImageTextEncoder)
    assert (encoder.dim, encoder.token_width) == (24, 40)
    assert list(encoder.fingerprint["preprocess"]["mean"]) == [0.5, 0.4, 0.3]


@pytest.mark.parametrize(
    ("name", "pretrained"),
    [
        ("ViT-B-32", "random:1"),
        ("ViT-B-32-quickgelu", "random:1"),
        pytest.param("RN50", "random:1", marks=pytest.mark.slow),
        pytest.param("coca_ViT-B-32", "random:1", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("fewer_layers")
def test_named_architectures_equal_open_clip(name: str, pretrained: str) -> None:
    import open_clip
    import torch
    from open_clip.transform import PreprocessCfg, image_transform_v2

    from models.encoders.loading import load_encoder

    encoder = load_encoder(
        EncoderSpec(name=name, pretrained=pretrained, preprocess="clip", device="cpu")
    )
    model, tokenizer = encoder.model, open_clip.get_tokenizer(name)
    config = PreprocessCfg(**open_clip.get_model_preprocess_cfg(model))
    transform = image_transform_v2(config, is_train=False)
    with torch.inference_mode():
        texts = model.encode_text(tokenizer(TEXTS), normalize=False).numpy()
        pixels = torch.stack([transform(picture) for picture in pictures(2)])
        images = model.encode_image(pixels, normalize=False).numpy()
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), texts, atol=5e-6)
    np.testing.assert_allclose(encoder.encode_images(pictures(2)), images, atol=5e-6)


@pytest.mark.usefixtures("fewer_layers")
def test_separate_text_tower_equals_open_clip() -> None:
    import open_clip
    import torch

    from models.encoders.text_tower import TextTower

    # CustomTextCLIP: the same tower under another name in the model.
    model = open_clip.create_model("ViT-B-32", force_custom_text=True, load_weights=False).eval()
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    tower = TextTower(model, tokenizer)
    with torch.inference_mode():
        expected = model.encode_text(tokenizer(TEXTS)).numpy()
    got = tower.encode_rows([tower.tokens.row(text) for text in TEXTS])
    np.testing.assert_allclose(got, expected, atol=5e-6)


@pytest.mark.parametrize(
    "text",
    [
        {"block_type": "custom", "qk_norm": True, "scale_fc": True},
        {"ls_init_value": 0.5},
        {"proj_bias": True},
        {"proj_type": "none", "width": 24},
        {"context_length": 16},
    ],
)
def test_variants_of_the_text_tower_equal_open_clip(tmp_path: Path, text: dict[str, Any]) -> None:
    import open_clip
    import torch

    from models.encoders.loading import load_encoder
    from tests.fakes.small_clip import write_small_clip

    encoder = load_encoder(
        EncoderSpec(name=str(write_small_clip(tmp_path, text=text)), device="cpu")
    )
    assert encoder.text is not None  # cropped, not handed to the library
    ids = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(TEXTS)
    with torch.inference_mode():
        expected = encoder.model.encode_text(ids).numpy()
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected, atol=2e-6)


@pytest.mark.parametrize("pool", [{"pool_type": "first", "no_causal_mask": True}])
def test_a_tower_that_is_read_elsewhere_encodes_but_takes_no_tokens(
    tmp_path: Path, pool: dict[str, object]
) -> None:
    import open_clip
    import torch

    from models.encoders.loading import load_encoder
    from models.encoders.text_tower import SpliceUnsupported
    from tests.fakes.small_clip import write_small_clip

    encoder = load_encoder(
        EncoderSpec(name=str(write_small_clip(tmp_path, text=pool)), device="cpu")
    )
    ids = open_clip.get_tokenizer("ViT-B-32")(TEXTS)
    with torch.inference_mode():
        expected = encoder.model.encode_text(ids).numpy()
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected, atol=1e-6)
    with pytest.raises(SpliceUnsupported, match="choose a CLIP backbone"):
        encoder.encode_spliced([SplicedText("a")], np.zeros((1, 40), dtype=np.float32))


@pytest.mark.parametrize(("dtype", "tolerance"), [("bf16", 0.02), ("fp16", 0.003)])
def test_low_precision_stays_near_float32(small: Path, dtype: str, tolerance: float) -> None:
    from models.encoders.loading import load_encoder

    exact = load_encoder(EncoderSpec(name=str(small), device="cpu"))
    rough = load_encoder(EncoderSpec(name=str(small), dtype=dtype, device="cpu"))
    for a, b in (
        (exact.encode_texts(TEXTS), rough.encode_texts(TEXTS)),
        (exact.encode_images(pictures()), rough.encode_images(pictures())),
    ):
        assert b.dtype == np.float32
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert 0 < 1 - cosine.min() < tolerance
    assert exact.fingerprint != rough.fingerprint


RESNET = {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64, "head_width": 64}


@pytest.mark.parametrize("vision", [{}, RESNET])
def test_channels_last_give_the_same_features_under_the_same_key(
    tmp_path: Path, vision: dict[str, Any]
) -> None:
    import torch

    from models.encoders.loading import load_encoder
    from models.instructcir.parts import load_backbone
    from tests.fakes.small_clip import write_small_clip

    plain = EncoderSpec(name=str(write_small_clip(tmp_path, vision=vision)), device="cpu")
    other = plain.changed(channels_last=True, image_batch=2)
    exact, moved = load_encoder(plain), load_encoder(other)
    (weight,) = (w for name, w in moved.model.named_parameters() if name.endswith("conv1.weight")
                 and "layer" not in name)  # fmt: skip
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()
    np.testing.assert_allclose(
        moved.encode_images(pictures()), exact.encode_images(pictures()), rtol=1e-4, atol=5e-6
    )
    assert moved.fingerprint == exact.fingerprint == encoder_facts(other).fingerprint
    if not vision:  # what is trained and saved is laid out as ever
        model, _ = load_backbone(other)
        assert all(each.is_contiguous() for each in model.parameters())


@pytest.mark.slow
def test_a_compiled_image_tower_gives_the_same_features_under_the_same_key(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.encoders.loading import load_encoder
    from tests.fakes.captured_graphs import capture_graphs

    plain = EncoderSpec(name=str(small), device="cpu", image_batch=2)
    captured = capture_graphs(monkeypatch)
    exact, compiled = load_encoder(plain), load_encoder(plain.changed(compile=True))
    wanted = exact.encode_images(pictures())
    assert not captured
    np.testing.assert_allclose(compiled.encode_images(pictures()), wanted, atol=2e-6)
    assert captured
    assert compiled.fingerprint == exact.fingerprint


def test_a_precision_that_follows_the_device_is_named_by_what_it_means(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models import devices
    from models.encoders.loading import load_encoder

    def facts(dtype: str, device: str) -> Any:
        return encoder_facts(EncoderSpec(name=str(small), dtype=dtype, device=device)).fingerprint

    monkeypatch.setattr(devices, "gpu_is_available", lambda: False)
    assert facts("auto", "auto") == facts("fp32", "auto")
    monkeypatch.setattr(devices, "gpu_is_available", lambda: True)
    assert facts("auto", "auto") == facts("bf16", "cpu")
    assert facts("auto", "cpu") == facts("fp32", "cpu")
    loaded = load_encoder(EncoderSpec(name=str(small), dtype="auto", device="cpu"))
    assert loaded.fingerprint == facts("fp32", "cpu")


def test_bf16_towers_of_a_trained_clip_are_within_a_thousandth() -> None:
    """The error that docs/benchmarks.md states: cosines to the features in fp32."""
    import models
    from models.encoders.loading import load_encoder
    from tests.fakes.pictures import pixels

    name = str(Path(models.__file__).parent / "embedded" / "clip")
    exact, rough = (
        load_encoder(EncoderSpec(name=name, dtype=dtype, device="cpu"))
        for dtype in ("fp32", "bf16")
    )
    seen = [pixels(seed, 120 + seed, 100) for seed in range(12)]
    for a, b in (
        (exact.encode_images(seen), rough.encode_images(seen)),
        (exact.encode_texts(TEXTS), rough.encode_texts(TEXTS)),
    ):
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert 0 < 1 - cosine.min() < 1e-3


def test_own_byte_pair_file_beside_the_config_is_used(tmp_path: Path) -> None:
    from models.encoders.loading import load_encoder
    from tests.fakes.small_clip import write_small_clip

    merges = ["r e", "re d</w>"]
    folder = write_small_clip(tmp_path, merges=merges)
    encoder = load_encoder(EncoderSpec(name=str(folder), device="cpu"))
    # 256 bytes, 256 bytes that end a word, two merges, start and end of text.
    assert encoder.tower.tokens.ids("red") == [513]
    assert (encoder.tower.tokens.start, encoder.tower.tokens.end) == ((514,), 515)
    assert encoder.encode_texts(["red star"]).shape == (1, 24)


def test_vocabulary_of_another_model_is_refused(tmp_path: Path) -> None:
    from models.encoders.loading import load_encoder
    from tests.fakes.small_clip import write_small_clip

    folder = write_small_clip(tmp_path, merges=["r e"])
    (folder / "bpe.txt.gz").unlink()
    with pytest.raises(EncoderNotFound, match=r"bpe\.txt\.gz"):
        load_encoder(EncoderSpec(name=str(folder), device="cpu"))


@pytest.mark.usefixtures("fewer_layers")
def test_openai_weights_run_with_quick_gelu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip
    import torch

    from models.encoders.loading import load_encoder

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # The tag's weights, stood in for by random ones of the right shape.
    torch.manual_seed(3)
    trained = open_clip.create_model("ViT-B-32-quickgelu", load_weights=False).eval()
    file = tmp_path / "weights.pt"
    torch.save(trained.state_dict(), file)
    monkeypatch.setattr("models.hub.hub_fault", lambda: "")
    monkeypatch.setattr(backbone_files, "download_tagged", lambda config: str(file))
    encoder = load_encoder(EncoderSpec(name="ViT-B/32", pretrained="openai", device="cpu"))
    ids = open_clip.get_tokenizer("ViT-B-32")(TEXTS)
    with torch.inference_mode():
        expected = trained.encode_text(ids).numpy()
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected, atol=5e-6)
    assert encoder.fingerprint["quick_gelu"] is True
    bare = EncoderSpec(name="ViT-B-32", pretrained=str(file), device="cpu")
    expected = encoder.fingerprint, load_encoder(bare).fingerprint
    refuse_models(monkeypatch)
    tagged = encoder_facts(EncoderSpec(name="ViT-B/32", pretrained="openai"))
    assert (tagged.fingerprint, encoder_facts(bare).fingerprint) == expected
    assert tagged.dim == 512


def refuse_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on no network can be made."""
    import open_clip

    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("a network was made")

    monkeypatch.setattr(open_clip, "create_model", refuse)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"preprocess": "clip", "dtype": "bf16"},
        {"pad_ratio": 1.5, "image_batch": 3},
    ],
)
def test_a_directory_is_known_without_a_network(
    small: Path, spec: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from models.encoders.loading import load_encoder

    spec_of = EncoderSpec(name=str(small), device="cpu", **spec)
    encoder = load_encoder(spec_of)
    refuse_models(monkeypatch)
    facts = encoder_facts(spec_of)
    assert facts.fingerprint == encoder.fingerprint
    assert facts.dim == encoder.dim == 24


@pytest.mark.usefixtures("fewer_layers")
def test_an_untrained_network_is_known_by_its_weights() -> None:
    one, other = (
        encoder_facts(EncoderSpec(name="ViT-B-32", pretrained=f"random:{i}")) for i in (1, 2)
    )
    assert one.fingerprint["weights_sha256"] != other.fingerprint["weights_sha256"]
    assert one.dim == other.dim == 512


def test_pictures_that_open_clip_would_prepare_otherwise_are_refused(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import open_clip

    from models.encoders.loading import load_encoder

    theirs = open_clip.get_model_preprocess_cfg
    monkeypatch.setattr(
        open_clip, "get_model_preprocess_cfg", lambda model: theirs(model) | {"size": (7, 7)}
    )
    with pytest.raises(EncoderNotFound, match="prepares pictures"):
        load_encoder(EncoderSpec(name=str(small), device="cpu"))


def test_fingerprint_follows_weights_and_not_the_place(small: Path, tmp_path: Path) -> None:
    from models.encoders.loading import load_encoder

    copy = tmp_path / "elsewhere"
    copy.mkdir()
    for file in small.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    here = load_encoder(EncoderSpec(name=str(small), device="cpu")).fingerprint
    assert load_encoder(EncoderSpec(name=str(copy), device="cpu")).fingerprint == here
    assert str(small) not in str(here)
    other = load_encoder(EncoderSpec(name=str(small), device="cpu", preprocess="clip")).fingerprint
    assert other != here


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-B-32", "", "needs `pretrained`.*openai"),
        ("ViT-B-99", "openai", "Names like it: ViT-B-16"),
        ("laion/CLIP-ViT-B-32", "", "no directory 'laion/CLIP-ViT-B-32' with .* hf-hub:ORG/REPO"),
        ("ViT-B-32", "no-such-tag", "no weights 'no-such-tag'; tags: openai"),
        ("ViT-B-32", "laion2b_e61", "did you mean 'laion2b_e16'.*tags: openai"),
        ("ViT-B-32", "none.pt", "there is no such file; tags: openai"),
        ("ViT-B-32", "random:x", "a number"),
        ("local-dir:/no/such/place", "", "is not a directory that holds"),
    ],
)
def test_unknown_backbones_say_what_is_known(name: str, pretrained: str, message: str) -> None:
    from models.encoders.loading import load_encoder

    with pytest.raises(EncoderNotFound, match=message):
        load_encoder(EncoderSpec(name=name, pretrained=pretrained, device="cpu"))


@pytest.mark.parametrize(
    "name",
    ["ViT-B-32", "org/ViT", "hf-hub:org/repo", "local-dir:/a/b:c", "local-dir:./x", "other:x", ":"],
)
def test_names_are_taken_apart_as_open_clip_does(name: str) -> None:
    from open_clip.factory import parse_model_name

    assert schema_and_place(name) == parse_model_name(name)


@pytest.mark.parametrize("name", ["hf-hub:", "local-dir:"])
def test_schemas_without_a_place_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="names no place"):
        schema_and_place(name)


def test_directory_without_weights_is_never_a_random_network(tmp_path: Path) -> None:
    from models.encoders.loading import load_encoder
    from tests.fakes.small_clip import write_small_clip

    (write_small_clip(tmp_path) / "open_clip_model.safetensors").unlink()
    with pytest.raises(EncoderNotFound, match="no weights"):
        load_encoder(EncoderSpec(name=str(tmp_path), device="cpu"))


def test_nothing_in_nothing_out(small: Path) -> None:
    from models.encoders.loading import load_encoder

    encoder = load_encoder(EncoderSpec(name=str(small), device="cpu"))
    assert encoder.encode_texts([]).shape == (0, 24)
    assert encoder.encode_images([]).shape == (0, 24)
    assert encoder.encode_spliced([], np.zeros((0, 40), dtype=np.float32)).shape == (0, 24)
