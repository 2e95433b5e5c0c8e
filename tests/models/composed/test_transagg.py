"""TransAgg on a CLIP against open_clip, and published files in the exact layout."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from models.checkpoints import UnusableCheckpoint
from models.composed.transagg_settings import MaskMode, TransAggSettings
from models.encoders.spec import EncoderSpec
from tests.fakes.small_networks import TEXTS, pixels, write_clip

if TYPE_CHECKING:
    import torch

    from models.composed.transagg_network import TransAggNetwork

DIM = 24


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


def network(folder: Path, **settings: Any) -> TransAggNetwork:
    from models.composed.transagg_network import build

    spec = EncoderSpec(name=str(folder), preprocess="clip", device="cpu")
    return build(spec, TransAggSettings(feedforward=32, **settings), seed=0)


def test_tokens_are_those_that_open_clip_pools(clip: Path) -> None:
    """Class token, end-of-text token and targets equal open_clip's own vectors."""
    import torch

    from models.encoders.loading import load_encoder

    made = network(clip).eval()
    own = load_encoder(EncoderSpec(name=str(clip), preprocess="clip", device="cpu"))
    ids = made.tokenised(TEXTS)["texts"]
    with torch.no_grad():
        image, text = own.model.encode_image(pixels(4)), own.model.encode_text(own.tokenize(TEXTS))
        read = made.towers.text_tokens(ids)
        torch.testing.assert_close(made.towers.image_tokens(pixels(4))[:, 0], image)
        torch.testing.assert_close(made.target(pixels(4)), image)
        torch.testing.assert_close(read.pooled, text, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(read.tokens[torch.arange(4), read.ends], read.pooled)


@pytest.mark.parametrize("mask", ["masked", "train_plus_one", "eval_as_torch"])
def test_padding_length_changes_what_reads_padding(clip: Path, mask: MaskMode) -> None:
    import torch

    made = network(clip, mask=mask, dropout=0.0)
    ids = made.tokenised(TEXTS)["texts"]
    assert (ids.shape[1] == 77) is (mask != "masked")
    longest = int((ids != 0).sum(dim=1).max())
    cropped, longer = ids[:, :longest], torch.nn.functional.pad(ids[:, :longest], (0, 9))
    few, many = (made.query(pixels(4), {"texts": each}) for each in (cropped, longer))
    assert torch.allclose(few, many, atol=1e-5) is (mask == "masked")


@pytest.mark.parametrize(
    ("trained", "parts"), [("text", {"text"}), ("neither", set()), ("both", {"text", "image"})]
)
def test_what_is_trained(clip: Path, trained: str, parts: set[str]) -> None:
    import torch

    made = network(clip, trained=trained).train()
    batch = {
        "references": pixels(4),
        "targets": pixels(4, seed=2),
        "target_ids": torch.arange(4),
        **made.tokenised(TEXTS),
    }
    made.loss(batch).backward()
    moved = {
        name.split(".")[1]
        for name, parameter in made.named_parameters()
        if name.startswith("towers.") and parameter.grad is not None
    }
    assert moved == parts
    assert all(parameter.grad is not None for parameter in made.head.parameters())


def published_file(folder: Path, network: TransAggNetwork) -> dict[str, torch.Tensor]:
    """A random CLIP under OpenAI's names with 64 wide heads, and a head, as published."""
    import open_clip
    import torch

    torch.manual_seed(3)
    architecture: dict[str, Any] = {
        "embed_dim": DIM,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"width": 64, "heads": 1, "layers": 2},
    }
    state = open_clip.CLIP(**architecture).state_dict()
    named = {f"pretrained_model.{name}": each for name, each in state.items()}
    named |= network.head.state_dict()
    torch.save(named, folder / "transagg.pt")
    return named


def test_a_published_file_loads_and_computes_as_open_clip(clip: Path, tmp_path: Path) -> None:
    import open_clip
    import torch

    from models.composed.transagg_network import published, rebuild

    named = published_file(tmp_path, network(clip))
    made = published(tmp_path / "transagg.pt", TransAggSettings(feedforward=32))
    own = {n.removeprefix("pretrained_model."): t for n, t in named.items() if n.startswith("pre")}
    reference = open_clip.model.build_model_from_openai_state_dict(dict(own)).float()
    reference.load_state_dict(own)  # once more: that function rounds to half precision
    read = made.tokenised(TEXTS)
    with torch.no_grad():
        for found, expected in (
            (made.target(pixels(4)), reference.encode_image(pixels(4))),
            (
                made.towers.text_vector(read["texts"]),
                reference.encode_text(open_clip.tokenize(TEXTS)),
            ),
        ):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        again = rebuild(made.architecture(), tmp_path)
        again.load_state_dict(made.state_dict())
        torch.testing.assert_close(again.eval().query(pixels(4), read), made.query(pixels(4), read))
    assert made.preprocess.fingerprint["geometry"] == "targetpad"
    assert made.preprocess.config.size == (32, 32)


@pytest.mark.parametrize("change", ["weighted_layer.bias", "pretrained_model.visual.proj", "more"])
def test_a_file_that_lacks_or_adds_a_weight_is_refused_by_name(
    clip: Path, tmp_path: Path, change: str
) -> None:
    import torch

    from models.composed.transagg_network import published

    named = published_file(tmp_path, network(clip))
    if change == "more":
        named["more"] = torch.zeros(2)
    else:
        del named[change]
    torch.save(named, tmp_path / "broken.pt")
    with pytest.raises(UnusableCheckpoint, match=change.removeprefix("pretrained_model.")):
        published(tmp_path / "broken.pt", TransAggSettings(feedforward=32))


def test_heads_that_do_not_divide_the_width_are_refused(clip: Path) -> None:
    with pytest.raises(ValueError, match="heads is 7, which does not divide the backbone's width"):
        network(clip, heads=7)


def test_a_backbone_without_a_class_token_is_refused(tmp_path: Path) -> None:
    from models.instructcir.parts import BackboneUnsupported

    with pytest.raises(BackboneUnsupported, match="pooled, not read at the class token"):
        network(write_clip(tmp_path, {"pool_type": "avg"}))
