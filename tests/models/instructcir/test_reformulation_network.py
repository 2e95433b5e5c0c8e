"""The network against open_clip, against a network written out naively, and against itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from models.encoders.spec import EncoderSpec
from models.instructcir.settings import NetworkSettings
from tests.fakes.small_networks import BACKBONES

if TYPE_CHECKING:
    import torch

    from models.instructcir.blocks import CrossAttention
    from models.instructcir.network import ReformulationNetwork


def reference(folder: Path) -> torch.nn.Module:
    """The same weights in open_clip's own hands."""
    import open_clip

    return open_clip.create_model(f"local-dir:{folder}").eval()


def silence(network: ReformulationNetwork) -> None:
    """Zero what cross-attention puts out."""
    import torch

    with torch.no_grad():
        for block in network.blocks:
            if block.cross is not None:
                block.cross.out.weight.zero_()
                block.cross.out.bias.zero_()


@pytest.mark.parametrize("kind", BACKBONES)
def test_without_cross_attention_output_it_is_open_clip(tmp_path: Path, kind: str) -> None:
    import open_clip
    import torch

    from tests.fakes.small_networks import TEXTS, pixels, small_network, write_clip

    folder = write_clip(tmp_path, **BACKBONES[kind])
    theirs = reference(folder)
    network = small_network(folder)
    images, ids = pixels(len(TEXTS)), network.text_ids(TEXTS)
    with torch.no_grad():
        loud = network.train().query(images, ids)
        silence(network)
        quiet = network.query(images, ids)
        expected = theirs.encode_image(images)
        image = expected[0] if isinstance(expected, tuple) else expected
        text = theirs.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS))
    torch.testing.assert_close(quiet.image, image, atol=1e-5, rtol=0)
    torch.testing.assert_close(quiet.text, text, atol=1e-5, rtol=0)
    assert (loud.image - image).abs().max() > 1e-2


@pytest.mark.slow
def test_without_cross_attention_output_vit_b_32_is_open_clip() -> None:
    import open_clip
    import torch

    from models.instructcir.network import build_network
    from tests.fakes.small_networks import pixels

    network = build_network(EncoderSpec(name="ViT-B-32", pretrained="random:3", preprocess="clip"))
    torch.manual_seed(3)
    theirs = open_clip.create_model("ViT-B-32").eval()
    silence(network)
    images = pixels(2, size=224)
    with torch.no_grad():
        got = network.query(images, network.text_ids(["make it blue", "a dog"]))
        torch.testing.assert_close(got.image, theirs.encode_image(images), atol=1e-5, rtol=0)
    assert got.z.shape == (2, 512)
    assert sum(p.numel() for name, p in network.new_parameters() if ".cross." in name) == 23_648_256


def test_with_neither_cross_attention_nor_predictor_it_is_the_original_clip(small: Path) -> None:
    import open_clip
    import torch

    from tests.fakes.small_networks import TEXTS, pixels, small_network

    network = small_network(small, cross_attended_blocks=0, predictor=False)
    theirs, images = reference(small), pixels(len(TEXTS))
    with torch.no_grad():
        image = theirs.encode_image(images)
        text = theirs.encode_text(open_clip.get_tokenizer(f"local-dir:{small}")(TEXTS))
        query = network.query(images, network.text_ids(TEXTS)).z
        target = network.target(images)
    sums = image / image.norm(dim=1, keepdim=True) + text / text.norm(dim=1, keepdim=True)
    torch.testing.assert_close(query, sums, atol=1e-5, rtol=0)
    torch.testing.assert_close(target, image, atol=1e-5, rtol=0)


def naive_query(
    network: ReformulationNetwork, theirs: Any, image: torch.Tensor, text: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """z, e_T and v of one image (1, 3, H, W) and one text, written out with open_clip's parts."""
    import open_clip
    import torch
    from torch.nn import functional

    ids = open_clip.get_tokenizer("ViT-B-32")([text])
    length = int((ids != 0).sum())
    states: dict[str, torch.Tensor] = {}
    hook = theirs.ln_final.register_forward_hook(lambda m, i, out: states.update(S=out))
    pure = theirs.encode_text(ids)
    hook.remove()
    sequence = states["S"][:, :length] if network.settings.text_mask == "eot" else states["S"]
    x = theirs.visual._embeds(image)
    for theirs_block, ours in zip(theirs.visual.transformer.resblocks, network.blocks, strict=True):
        normed = theirs_block.ln_1(x)
        x = x + theirs_block.attn(normed, normed, normed, need_weights=False)[0]
        if ours.cross is not None:
            x = x + naive_attention(ours.cross, x, sequence)
        x = x + theirs_block.mlp(theirs_block.ln_2(x))
    v = theirs.visual.ln_post(x[:, 0]) @ theirs.visual.proj
    if network.predictor is None:
        return v, pure, v
    inputs = [v, pure]
    if network.settings.predictor_inputs == "normalised":
        inputs = [each / each.norm() for each in inputs]
    first, last = network.predictor[0], network.predictor[2]
    hidden = functional.gelu(torch.cat(inputs, 1) @ first.weight.T + first.bias)
    return hidden @ last.weight.T + last.bias, pure, v


def naive_attention(cross: CrossAttention, x: torch.Tensor, sequence: torch.Tensor) -> torch.Tensor:
    """Softmax attention head by head for one image (1, N, W) and one text (1, L, T)."""
    import torch
    from torch.nn import functional

    width = x.shape[-1]
    normed = functional.layer_norm(x, (width,), cross.norm.weight, cross.norm.bias)
    q = (normed @ cross.query.weight.T + cross.query.bias)[0]
    k = (sequence @ cross.key.weight.T + cross.key.bias)[0]
    v = (sequence @ cross.value.weight.T + cross.value.bias)[0]
    size = width // cross.heads
    heads = []
    for start in range(0, width, size):
        one = slice(start, start + size)
        weights = torch.softmax(q[:, one] @ k[:, one].T / size**0.5, dim=-1)
        heads.append(weights @ v[:, one])
    out = torch.cat(heads, dim=1) @ cross.out.weight.T + cross.out.bias
    return (out if cross.gate is None else cross.gate * out)[None]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"text_mask": "full"},
        {"cross_attended_blocks": 1},
        {"cross_attended_blocks": 0},
        {"predictor": False},
        {"predictor_inputs": "normalised", "predictor_ratio": 2},
        {"gate": "zero_init"},
        {"target_predictor": False},
    ],
    ids=str,
)
def test_equals_a_naive_network(small: Path, settings: dict[str, Any]) -> None:
    import torch

    from tests.fakes.small_networks import TEXTS, pixels, small_network

    network, theirs = small_network(small, **settings), reference(small)
    with torch.no_grad():
        for name, parameter in network.new_parameters():
            # Biases start at 0 and norms at 1: move them, or equality says nothing of them.
            torch.manual_seed(len(name))
            parameter.add_(0.1 * torch.randn_like(parameter))
        images = pixels(len(TEXTS))
        got = network.query(images, network.text_ids(TEXTS))
        target = network.target(images)
        rows = [naive_query(network, theirs, images[i : i + 1], t) for i, t in enumerate(TEXTS)]
        nulls = [naive_query(network, theirs, images[i : i + 1], "") for i in range(len(TEXTS))]
    for ours, naive in zip(got, map(torch.cat, zip(*rows, strict=True)), strict=True):
        torch.testing.assert_close(ours, naive, atol=2e-5, rtol=0)
    side = 2 if settings.get("target_predictor") is False else 0
    expected = torch.cat([null[side] for null in nulls])
    torch.testing.assert_close(target, expected, atol=2e-5, rtol=0)


def test_padding_changes_nothing_and_full_needs_it(small: Path) -> None:
    import torch
    from torch.nn import functional

    from tests.fakes.small_networks import TEXTS, pixels, small_network

    network = small_network(small)
    cropped = network.text_ids(TEXTS)
    padded = functional.pad(cropped, (0, 77 - cropped.shape[1]))
    assert cropped.shape[1] < 20
    with torch.no_grad():
        tight = network.attend(pixels(4), network.read(cropped))
        # On other devices `read` crops nothing: the mask alone must do.
        sequence, ends, pooled = network.text(padded)
        mask = (torch.arange(77) <= ends[:, None])[:, None, None]
        text = network.read(cropped)._replace(sequence=sequence, mask=mask, pooled=pooled)
        loose = network.attend(pixels(4), text)
    torch.testing.assert_close(tight.z, loose.z, atol=1e-5, rtol=0)
    full = small_network(small, text_mask="full")
    assert full.text_ids(TEXTS).shape == (4, 77)
    with pytest.raises(ValueError, match="text_ids"):
        full.query(pixels(4), cropped)


@pytest.mark.parametrize("null_text", ["empty", "learned"])
@pytest.mark.parametrize("text_mask", ["eot", "full"])
def test_constant_null_text_gives_identical_targets(
    small: Path, null_text: str, text_mask: str
) -> None:
    import torch

    from tests.fakes.small_networks import pixels, small_network

    network = small_network(small, null_text=null_text, text_mask=text_mask)
    images = pixels(5)
    with torch.no_grad():
        computed = network.target(images)
        assert torch.equal(network.target(images, network.constant_null_text()), computed)
        # The learned null text starts as the empty string, which `full` pads.
        if text_mask == "eot" or null_text == "empty":
            empty = network.query(images, network.text_ids([""] * 5)).z
            torch.testing.assert_close(computed, empty, atol=1e-5, rtol=0)


def test_targets_do_not_depend_on_texts_beside_them(small: Path) -> None:
    import torch

    from tests.fakes.small_networks import TEXTS, pixels, small_network

    network = small_network(small)
    images = pixels(4)
    with torch.no_grad():
        before = network.target(images)
        network.query(images, network.text_ids(TEXTS))
        assert torch.equal(network.target(images), before)
        network.query(pixels(2), network.text_ids(["something else", "entirely"]))
        assert torch.equal(network.target(images), before)


def test_zero_init_gate_starts_at_open_clip(small: Path) -> None:
    import torch

    from tests.fakes.small_networks import TEXTS, pixels, small_network

    network = small_network(small, gate="zero_init")
    with torch.no_grad():
        got = network.query(pixels(4), network.text_ids(TEXTS)).image
        expected = reference(small).encode_image(pixels(4))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "per_block", "blocks"),
    [
        ("ViT-B-32", 1_970_688, 12),
        ("ViT-L-14", 3_676_160, 24),
        ("ViT-bigG-14", None, 48),
    ],
)
def test_sizes_of_the_papers_networks(name: str, per_block: int | None, blocks: int) -> None:
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    from models.instructcir.network import TextContext

    with FakeTensorMode():  # shapes and types are computed, numbers are not
        network = unfilled_network(name)
        text = TextContext(torch.empty(2, 9, network.text.width), None, torch.empty(2, network.dim))
        out = network.attend(torch.empty(2, 3, 224, 224), text)
    crosses = [block.cross for block in network.blocks]
    counts = [sum(p.numel() for p in cross.parameters()) for cross in crosses]
    width, text = network.image.transformer.width, network.text.width
    by_hand = 2 * (width * width + width) + 2 * (text * width + width) + 2 * width
    assert counts == [by_hand] * blocks
    assert per_block in (None, by_hand)
    millions = {"ViT-B-32": 23.6, "ViT-L-14": 88.2, "ViT-bigG-14": 470.8}[name]
    assert round(sum(counts) / 1e6, 1) == millions
    assert {cross.heads for cross in crosses} == {width // (104 if "G" in name else 64)}
    assert out.z.shape == (2, network.dim)
    assert [network.predictor[i].weight.shape for i in (0, 2)] == [
        (4 * network.dim, 2 * network.dim),
        (network.dim, 4 * network.dim),
    ]


def unfilled_network(name: str) -> ReformulationNetwork:
    import open_clip
    from open_clip.transform import PreprocessCfg

    from models.encoders.preprocess import ImagePreprocess
    from models.instructcir.network import ReformulationNetwork
    from models.instructcir.parts import NetworkParts, bare_backbone, make_tokens

    architecture = open_clip.get_model_config(name)
    parts = NetworkParts(
        architecture,
        make_tokens(architecture, None),
        ImagePreprocess("clip", 1.25, PreprocessCfg()),
        {},
    )
    return ReformulationNetwork(bare_backbone(architecture), parts, NetworkSettings())


def test_new_layers_start_as_the_paper_says() -> None:
    import torch

    from models.instructcir.blocks import CrossAttention

    torch.manual_seed(0)
    cross = CrossAttention(64, 48, 4)
    for layer, fan_in in ((cross.query, 64), (cross.key, 48), (cross.value, 48), (cross.out, 64)):
        bound = (6 / (fan_in + 64)) ** 0.5  # Xavier uniform
        weight = layer.weight.detach()
        assert float(weight.abs().max()) <= bound
        assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.05)
        assert not layer.bias.any()
    assert torch.equal(cross.norm.weight, torch.ones(64))
    assert not cross.norm.bias.any()


def test_seed_decides_new_layers_and_nothing_else(small: Path) -> None:
    import torch

    from models.instructcir.network import build_network

    spec = EncoderSpec(name=str(small), preprocess="clip", device="cpu")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = build_network(spec, seed=1)
    assert torch.equal(torch.rand(1), expected)  # the caller's random stream is untouched
    same, other = build_network(spec, seed=1).state_dict(), build_network(spec, seed=2)
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, same[name])
    different = {n for n, p in other.named_parameters() if not torch.equal(p, same[n])}
    new = {name for name, p in other.new_parameters() if p.ndim > 1}
    # A linear layer's default bias is random too; the predictor has two.
    assert different == new | {"predictor.0.bias", "predictor.2.bias"}


def test_parameter_groups(small: Path) -> None:
    from tests.fakes.small_networks import small_network

    network = small_network(small, gate="zero_init")
    names = {id(p): name for name, p in network.named_parameters()}
    groups = {g.name: {names[id(p)] for p in g.parameters} for g in network.parameter_groups()}
    assert sum(map(len, groups.values())) == len(names)
    assert set().union(*groups.values()) == set(names.values())
    samples = {
        "pretrained_decay": ["image.conv1.weight", "image.proj", "text.embedding.weight"],
        "pretrained_no_decay": [
            "image.class_embedding",
            "image.positional_embedding",
            "text.positional",
            "text.ln_final.weight",
            "image.transformer.resblocks.0.block.attn.in_proj_bias",
        ],
        "new_decay": [
            "image.transformer.resblocks.1.cross.key.weight",
            "predictor.0.weight",
        ],
        "new_no_decay": [
            "image.transformer.resblocks.0.cross.gate",
            "image.transformer.resblocks.0.cross.norm.weight",
            "image.transformer.resblocks.0.cross.out.bias",
            "predictor.2.bias",
        ],
    }
    for group, members in samples.items():
        assert groups[group] >= set(members), group
    new = groups["new_decay"] | groups["new_no_decay"]
    assert all(".cross." in name or name.startswith("predictor.") for name in new)
    frozen = small_network(small, text_tower="frozen")
    kept = {id(p) for g in frozen.parameter_groups() for p in g.parameters}
    assert not any(id(p) in kept for p in frozen.text.parameters())


def test_more_blocks_than_there_are(small: Path) -> None:
    from tests.fakes.small_networks import small_network

    with pytest.raises(ValueError, match="has 2 blocks"):
        small_network(small, cross_attended_blocks=3)
