"""CLIP4CIR against open_clip, the printed formula, and cases worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from models.checkpoints import UnusableCheckpoint
from models.composed.clip4cir_settings import CombinerSettings, SumSettings
from models.encoders.spec import EncoderSpec
from tests.fakes.published_clips import published_combiner_state, residual_clip
from tests.fakes.small_networks import TEXTS, pixels, write_clip

if TYPE_CHECKING:
    import torch
    from torch import nn

SMALL = CombinerSettings(projection=12, hidden=20)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> EncoderSpec:
    folder = write_clip(tmp_path_factory.mktemp("clip"))
    return EncoderSpec(name=str(folder), preprocess="clip", device="cpu")


def batch(network: Any, count: int = 4) -> dict[str, torch.Tensor]:
    import torch

    return {
        "references": pixels(count),
        "targets": pixels(count, seed=2),
        "target_ids": torch.arange(count),
        **network.tokenised(TEXTS[:count]),
    }


def test_stage_one_starts_as_the_sum_of_image_and_text(spec: EncoderSpec) -> None:
    import torch

    from models.composed.clip4cir_network import build_sum
    from models.encoders.loading import load_encoder

    network, own = build_sum(spec, SumSettings(), seed=0), load_encoder(spec)
    texts = network.tokenised(TEXTS)
    with torch.no_grad():
        image, text = own.model.encode_image(pixels(4)), own.model.encode_text(own.tokenize(TEXTS))
        torch.testing.assert_close(network.query(pixels(4), texts), image + text)
        torch.testing.assert_close(network.target(pixels(4)), image)


def test_stage_one_trains_both_towers_on_the_printed_loss(spec: EncoderSpec) -> None:
    import torch

    from models.composed.clip4cir_network import build_sum

    network = build_sum(spec, SumSettings(), seed=0).train()
    rows = batch(network)
    loss = network.loss(rows)
    queries, targets = network.query(rows["references"], rows), network.target(rows["targets"])
    cosines = torch.nn.functional.cosine_similarity(queries[:, None], targets[None], dim=-1)
    expected = sum(-float(torch.log_softmax(100 * cosines[i], 0)[i].detach()) for i in range(4)) / 4
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
    loss.backward()
    without = {name for name, p in network.named_parameters() if p.grad is None}
    assert not without


def test_a_frozen_image_tower_gets_no_gradient(spec: EncoderSpec) -> None:
    from models.composed.clip4cir_network import build_sum

    network = build_sum(spec, SumSettings(trained="text"), seed=0)
    network.loss(batch(network)).backward()
    assert all(p.grad is None for p in network.towers.image.parameters())
    assert all(p.grad is not None for p in network.towers.text.parameters())


def combined(spec: EncoderSpec, settings: CombinerSettings = SMALL) -> Any:
    from models.composed.clip4cir_network import build_combiner, build_sum

    return build_combiner(build_sum(spec, SumSettings(), seed=0), settings, seed=0)


@pytest.mark.parametrize(("gate", "text", "image"), [(1e4, 1, 0), (-1e4, 0, 1), (0.0, 0.5, 0.5)])
def test_the_gate_forced(spec: EncoderSpec, gate: float, text: float, image: float) -> None:
    """With an MLP of zero, lambda 1, 0 and 1/2 leave the text, the image, and their sum."""
    import torch

    network = combined(spec).eval()
    texts = network.tokenised(TEXTS)
    with torch.no_grad():
        for layer in (network.combiner.joint[1], network.combiner.gate[1]):
            layer.weight.zero_()
            layer.bias.zero_()
        network.combiner.gate[1].bias.fill_(gate)
        v, e = network.target(pixels(4)), network.towers.text_vector(texts["texts"])
        expected = torch.nn.functional.normalize(text * e + image * v, dim=-1)
        torch.testing.assert_close(network.query(pixels(4), texts), expected)


def test_stage_two_trains_the_combiner_alone(spec: EncoderSpec) -> None:
    network = combined(spec).train()
    network.loss(batch(network)).backward()
    trained = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"combiner"}
    assert [group.name for group in network.parameter_groups()] == ["new_decay", "new_no_decay"]
    assert all(p.grad is not None for p in network.combiner.parameters())


def test_vectors_stand_in_for_pictures_and_texts(spec: EncoderSpec) -> None:
    """What is made once gives the loss that pictures and token ids give."""
    import torch

    network = combined(spec).eval()
    rows = batch(network)
    frozen = network.frozen()
    assert frozen.images is not None
    assert frozen.texts is not None
    with torch.no_grad():
        made = {
            **rows,
            "references": frozen.images(rows["references"]),
            "targets": frozen.images(rows["targets"]),
            **frozen.texts(network.tokenised(TEXTS)),
        }
        torch.testing.assert_close(network.loss(made), network.loss(rows))


def test_batch_norms_of_a_residual_network_keep_their_statistics(tmp_path: Path) -> None:
    import torch

    from models.composed.clip4cir_network import published_sum

    write_published(tmp_path, residual_clip())
    network = published_sum(tmp_path / "tuned_clip_best.pt", SumSettings()).train()
    before = {k: v.clone() for k, v in network.state_dict().items() if "running" in k}
    assert before
    rows = batch(network)
    rows["references"], rows["targets"] = (pixels(4, seed, 64) for seed in (5, 6))
    network.loss(rows).backward()
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items() if k in before)


def write_published(folder: Path, clip: nn.Module) -> dict[str, torch.Tensor]:
    import torch

    state = published_combiner_state(24, SMALL.projection, SMALL.hidden)
    torch.save({"CLIP": clip.state_dict()}, folder / "tuned_clip_best.pt")
    torch.save({"epoch": 7, "Combiner": state}, folder / "combiner_arithmetic.pt")
    return state


def test_published_files_compute_the_printed_formula(tmp_path: Path) -> None:
    import open_clip
    import torch

    from models.composed.clip4cir_network import published_combiner, rebuild_combiner

    clip = residual_clip().eval()
    w = write_published(tmp_path, clip)
    network = published_combiner(tmp_path, SMALL)
    texts = network.tokenised(TEXTS)

    def layer(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    with torch.no_grad():
        v = clip.encode_image(pixels(4, size=64))
        e = clip.encode_text(open_clip.tokenize(TEXTS))
        a, b = layer("text_projection_layer", e).relu(), layer("image_projection_layer", v).relu()
        h = torch.cat([a, b], dim=1)
        lam = layer("dynamic_scalar.3", layer("dynamic_scalar.0", h).relu()).sigmoid()
        mixed = layer("output_layer", layer("combiner_layer", h).relu()) + lam * e + (1 - lam) * v
        expected = mixed / mixed.norm(dim=1, keepdim=True)
        found = network.query(pixels(4, size=64), texts)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(network.target(pixels(4, size=64)), v, atol=1e-5, rtol=1e-5)
        again = rebuild_combiner(network.architecture(), tmp_path)
        again.load_state_dict(network.state_dict())
        torch.testing.assert_close(again.eval().query(pixels(4, size=64), texts), found)
    assert network.preprocess.config.size == (64, 64)


def test_combiner_files_of_another_training_are_refused(tmp_path: Path) -> None:
    import torch

    from models.composed.clip4cir_network import published_combiner

    write_published(tmp_path, residual_clip())
    torch.save({"Combiner": {}}, tmp_path / "combiner_harmonic.pt")
    with pytest.raises(UnusableCheckpoint, match=r"holds 2 files combiner\*\.pt"):
        published_combiner(tmp_path, SMALL)
    (tmp_path / "combiner_arithmetic.pt").unlink()
    with pytest.raises(UnusableCheckpoint, match="holds no state dict"):
        published_combiner(tmp_path, SMALL)
    state = published_combiner_state(24, SMALL.projection, SMALL.hidden)
    del state["dynamic_scalar.3.bias"]
    torch.save({"Combiner": state | {"extra": torch.zeros(1)}}, tmp_path / "combiner_harmonic.pt")
    with pytest.raises(UnusableCheckpoint, match=r"dynamic_scalar\.3\.bias.*extra"):
        published_combiner(tmp_path, SMALL)


def test_a_file_that_is_no_clip_is_refused(tmp_path: Path) -> None:
    import torch

    from models.composed.clip4cir_network import published_sum

    torch.save({"CLIP": {"weight": torch.zeros(1)}}, tmp_path / "tuned_clip.pt")
    with pytest.raises(
        UnusableCheckpoint, match=r"lacks positional_embedding; it holds 1 tensor \(weight\)"
    ):
        published_sum(tmp_path / "tuned_clip.pt", SumSettings())
