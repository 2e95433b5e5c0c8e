"""CompoDiff's loss, moving average and held-out recall against independent answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    import torch

    from models.compodiff.training import CompoDiffTraining
    from models.encoders.open_clip import OpenClipEncoder

TEXTS = ["make it red", "remove the square", "add a blue star", "larger"]
CAPTIONS = ["a red star", "a circle", "a blue star next to a circle", "a red star"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> OpenClipEncoder:
    from models.encoders.loading import load_encoder
    from models.encoders.spec import EncoderSpec
    from tests.fakes.small_clip import write_small_clip

    folder = tmp_path_factory.mktemp("clip")
    write_small_clip(folder, {"layers": 2}, merges=["r e", "re d</w>", "b l", "a d"])
    return load_encoder(EncoderSpec(name=str(folder), device="cpu"))


def training(encoder: OpenClipEncoder, **changes: Any) -> CompoDiffTraining:
    from models.compodiff.settings import DenoiserSettings
    from models.compodiff.training import build_training

    settings = DenoiserSettings(depth=2, heads=2, head_width=8, timesteps=50)
    return build_training(encoder, settings.changed(**changes), seed=3)


def batch(network: CompoDiffTraining) -> dict[str, torch.Tensor]:
    features = np.random.default_rng(0).normal(size=(6, 24)).astype(np.float32)
    return network.rows(features, [0, 1, 2, 3], [4, 5, 4, 2], TEXTS, CAPTIONS)


def naive_loss(network: CompoDiffTraining, encoder: OpenClipEncoder, seed: int) -> float:
    """The loss row by row: each text is tokenised alone, and dropped conditions are spelled out."""
    import torch

    rows, settings = batch(network), network.settings
    torch.manual_seed(seed)
    times = torch.randint(50, (4,))
    noise = torch.randn(4, 24)
    no_image = (torch.rand(4) < settings.drop_image).tolist()
    no_text = (torch.rand(4) < settings.drop_text).tolist()
    caption = (torch.rand(4) < settings.captions).tolist()
    errors = []
    for row in range(4):
        target, reference = rows["targets"][row], rows["references"][row]
        if settings.features == "unit":
            target, reference = (24**0.5 * x / x.norm() for x in (target, reference))
        curve = [np.cos((t / 50 + 0.008) / 1.008 * np.pi / 2) ** 2 for t in range(51)]
        kept = np.prod([max(0.001, curve[t + 1] / curve[t]) for t in range(int(times[row]) + 1)])
        noisy = kept**0.5 * target + (1 - kept) ** 0.5 * noise[row]
        text = CAPTIONS[row] if caption[row] else TEXTS[row]
        text = "" if no_text[row] else text
        found = network.denoiser(
            noisy[None].float(),
            times[row : row + 1],
            token_states(encoder, text),
            torch.zeros(1, 24) if no_image[row] or caption[row] else reference[None],
        )
        errors.append(((found[0] - target) ** 2).mean())
    assert any(no_image) or not settings.drop_image
    assert any(no_text) or not settings.drop_text
    assert any(caption) or not settings.captions
    return float(torch.stack(errors).mean().detach())


def token_states(encoder: OpenClipEncoder, text: str) -> torch.Tensor:
    """(1, L, W): open_clip's text tower up to the end of one text, layer by layer."""
    import torch

    model = encoder.model
    ids = encoder.tokenizer([text])[:, : int(encoder.tokenizer([text]).argmax()) + 1]
    with torch.no_grad():
        x = model.token_embedding(ids) + model.positional_embedding[: ids.shape[1]]
        mask = model.attn_mask[: ids.shape[1], : ids.shape[1]]
        for block in model.transformer.resblocks:
            x = block(x, attn_mask=mask)
        found: torch.Tensor = model.ln_final(x)
    return found


@pytest.mark.parametrize(
    ("changes", "seed"),
    [
        ({"drop_image": 0.0, "drop_text": 0.0}, 0),
        ({"drop_image": 0.5, "drop_text": 0.5}, 1),
        ({"drop_image": 0.0, "drop_text": 0.0, "captions": 0.5}, 2),
        ({"features": "as_encoded", "drop_image": 0.5, "drop_text": 0.5}, 4),
    ],
)
def test_the_loss_is_the_error_of_each_row(
    encoder: OpenClipEncoder, changes: dict[str, Any], seed: int
) -> None:
    import torch

    network = training(encoder, **changes)
    wanted = naive_loss(network, encoder, seed)
    torch.manual_seed(seed)
    assert float(network.loss(batch(network)).detach()) == pytest.approx(wanted, rel=1e-4)


def test_only_the_denoiser_learns_and_its_average_follows(encoder: OpenClipEncoder) -> None:
    import torch

    network = training(encoder)
    names = {name for name, p in network.named_parameters() if p.requires_grad}
    assert names == {f"denoiser.{name}" for name, _ in network.denoiser.named_parameters()}
    assert not any("embedding" in name and "bias" not in name for name in network.state_dict())
    before = [p.clone() for p in network.answering.parameters()]
    with torch.no_grad():
        for parameter in network.denoiser.parameters():
            parameter.add_(1.0)
    network.after_step(1, 100)  # momentum (1 + 1) / (10 + 1)
    for old, new in zip(before, network.answering.parameters(), strict=True):
        torch.testing.assert_close(new, old + 9 / 11, atol=1e-5, rtol=1e-5)
    network.after_step(10**6, 10**6)  # its largest momentum
    for old, new in zip(before, network.answering.parameters(), strict=True):
        torch.testing.assert_close(new, old + 9 / 11 + 0.001 * 2 / 11, atol=1e-5, rtol=1e-5)
    without = training(encoder, ema=0.0)
    without.after_step(1, 100)
    assert without.answering is without.denoiser
    assert not [name for name in without.state_dict() if name.startswith("average")]


def test_held_out_recall_is_that_of_sampled_features(
    encoder: OpenClipEncoder, tmp_path: Path
) -> None:
    """A denoiser in use, from its files, ranks the held-out targets as training measured."""
    import torch

    from models.compodiff.checkpoint import denoiser_files, load_denoiser
    from models.compodiff.encoder import CompoDiffEncoder
    from models.compodiff.settings import SamplingSettings
    from models.compodiff.token_states import BackboneStates

    network = training(encoder)
    rows = batch(network)
    parts = [{name: values[part] for name, values in rows.items()} for part in (slice(3), [3])]
    measured = network.held_out(parts)
    for name, content in denoiser_files(network.answering, network.settings, {}, {}).items():
        (tmp_path / name).write_bytes(content)
    texts = BackboneStates(encoder.tower)
    in_use = CompoDiffEncoder(load_denoiser(tmp_path), texts, torch.device("cpu"))
    how = SamplingSettings(draws=1, image_guidance=1, text_guidance=1, reference_share=0.0)
    queries = in_use.queries(rows["references"].numpy(), TEXTS, how)
    gallery = {int(i): rows["targets"][n].numpy() for n, i in enumerate(rows["target_ids"])}
    firsts = 0
    for query, own in zip(queries, rows["target_ids"].tolist(), strict=True):
        cosine = {i: query @ t / np.linalg.norm(t) for i, t in gallery.items()}
        firsts += max(cosine, key=lambda i: float(cosine[i])) == own
    assert measured["recall_1"] == pytest.approx(firsts / 4)
    assert measured["recall_5"] == 1.0  # three distinct targets
    assert measured["score"] == pytest.approx((firsts / 4 + 1) / 2)
