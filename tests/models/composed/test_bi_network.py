"""BLIP4CIR+Bi: both directions on a CLIP, and the published files on BLIP's towers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.blip_files import HEAD_WIDTH, VOCABULARY, WORDS, original_state, random_blip
from tests.fakes.small_clip import write_small_clip

if TYPE_CHECKING:
    import torch

    from models.blip.bi import BiOnBlip
    from models.composed.bi_network import BiOnClip

TEXTS = ["is red and a bit blue", "has sand", "no text"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP."""
    return write_small_clip(tmp_path_factory.mktemp("clip"))


def _on_clip(clip: Path, **settings: Any) -> BiOnClip:
    from models.composed.bi_network import build_sum
    from models.composed.bi_settings import BiSumSettings
    from models.encoders.spec import EncoderSpec

    return build_sum(EncoderSpec(name=str(clip)), BiSumSettings(**settings), 0)


def _batch(network: BiOnClip) -> dict[str, torch.Tensor]:
    import torch

    torch.manual_seed(1)
    return {
        "references": torch.randn(3, 3, 32, 32),
        "targets": torch.randn(3, 3, 32, 32),
        "target_ids": torch.tensor([0, 1, 2]),
        "reference_ids": torch.tensor([0, 1, 2]),
        **network.tokenised(TEXTS),
    }


def test_without_reversed_queries_it_is_clip4cir_on_marked_texts(clip: Path) -> None:
    """Stage one of CLIP4CIR, given texts that carry the marks already."""
    import torch

    from models.composed.clip4cir_network import build_sum
    from models.composed.clip4cir_settings import SumSettings
    from models.encoders.spec import EncoderSpec

    plain = build_sum(EncoderSpec(name=str(clip)), SumSettings(), 0)
    network = _on_clip(clip, reversed_weight=0.0)
    marks = ["[FORWARD] is red and [FORWARD] a bit blue", "[FORWARD] has sand", "[FORWARD] no text"]
    batch = _batch(network)
    torch.testing.assert_close(
        network.loss(batch), plain.loss({**batch, **plain.tokenised(marks)}), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("unit", [False, True])
def test_reversed_queries_add_their_weighted_loss(clip: Path, unit: bool) -> None:
    """-log softmax over targets j of 100 cos(target_j + backward text_i, reference_i)."""
    import torch

    network = _on_clip(clip, reversed_weight=0.3, unit_targets=unit)
    batch = _batch(network)
    with torch.no_grad():
        forward = _on_clip(clip, reversed_weight=0.0).loss(batch)
        tower, texts = network.towers, network.text_ids
        marks = ["[BACKWARD] is red and [BACKWARD] a bit blue"]
        marks += ["[BACKWARD] has sand", "[BACKWARD] no text"]
        targets = tower.image_vector(batch["targets"])
        targets = targets / targets.norm(dim=1, keepdim=True) if unit else targets
        backward = tower.text_vector(texts(marks))
        references = tower.image_vector(batch["references"])
        terms = []
        for row in range(3):
            cosines = [
                torch.nn.functional.cosine_similarity(each + backward[row], references[row], dim=0)
                for each in targets
            ]
            terms.append(torch.logsumexp(100 * torch.stack(cosines), 0) - 100 * cosines[row])
        expected = forward + 0.3 * torch.stack(terms).mean()
        torch.testing.assert_close(network.loss(batch), expected, atol=1e-4, rtol=1e-5)


def test_stage_two_trains_a_combiner_on_the_towers_of_stage_one(clip: Path) -> None:
    import torch

    from models.composed.bi_network import build_combiner
    from models.composed.bi_settings import BiCombinerSettings

    start = _on_clip(clip)
    with torch.no_grad():
        start.towers.text.positional.add_(0.1)
    network = build_combiner(start, BiCombinerSettings(projection=8, hidden=12), 3)
    network.loss(_batch(network)).backward()
    moved = {name for name, each in network.named_parameters() if each.grad is not None}
    assert moved
    assert all(name.startswith("combiner.") for name in moved)
    assert not any(
        each.requires_grad for name, each in network.named_parameters() if name not in moved
    )


def test_held_out_measures_both_directions(clip: Path) -> None:
    """Reversed recall by cosines written out."""
    import torch

    network = _on_clip(clip).eval()
    batch = _batch(network)
    with torch.no_grad():
        found = network.held_out([batch])
        targets = network.target(batch["targets"])
        queries = targets + network.text_vector(batch["reversed_texts"])
        cosines = torch.nn.functional.cosine_similarity(
            queries[:, None], network.target(batch["references"])[None], dim=-1
        )
    right = (cosines.argmax(1) == torch.arange(3)).float().mean()
    assert found["reversed_recall_1"] == pytest.approx(float(right))
    assert found["score"] == pytest.approx((found["recall_1"] + found["recall_5"]) / 2)


def _published(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """File -> state, of random published files."""
    import torch

    state = {n: t for n, t in original_state(random_blip()).items() if "_m." not in n}
    text = {n: t for n, t in state.items() if n.startswith(("text_encoder.", "text_proj."))}
    base = {n: t for n, t in state.items() if n not in text or "position_ids" in n}
    base |= {n: torch.zeros_like(t) for n, t in text.items()}  # replaced by the tuned ones
    base["text_decoder.bert.pooler.dense.bias"] = torch.zeros(3)
    torch.manual_seed(2)
    layers = {
        "text_projection_layer": (10, 24),
        "image_projection_layer": (10, 24),
        "combiner_layer": (14, 20),
        "output_layer": (24, 14),
        "dynamic_scalar.0": (14, 20),
        "dynamic_scalar.3": (1, 14),
    }
    combiner = {f"{name}.weight": torch.randn(*shape) for name, shape in layers.items()}
    combiner |= {f"{name}.bias": torch.randn(shape[0]) for name, shape in layers.items()}
    (folder / "vocab.txt").write_bytes(VOCABULARY)
    return {"model_base.pth": base, "tuned_blip_best.pt": text, "combiner.pt": combiner}


def _load(folder: Path, files: dict[str, dict[str, torch.Tensor]]) -> BiOnBlip:
    import torch

    from models.blip.bi import published_bi
    from models.composed.bi_settings import BiCombinerSettings

    keys = {"m": "model", "t": "BLIPTextEncoder", "c": "Combiner"}
    for name, state in files.items():
        torch.save({keys[name[0]]: state, "epoch": 1}, folder / name)
    return published_bi(folder, BiCombinerSettings(), HEAD_WIDTH).eval()


def test_published_files_equal_transformers_and_the_combiner_written_out(tmp_path: Path) -> None:
    """[CLS], no image, text_proj of place 0; n(W_o r(W_c h) + lam e + (1 - lam) v)."""
    import torch

    files, model = _published(tmp_path), random_blip()
    network = _load(tmp_path, files)
    pixels, state = torch.randn(1, 3, 32, 32), files["combiner.pt"]
    words = "[CLS] [ forward ] make it [UNK] [ forward ] [SEP]"  # behind "sand" a part begins
    ids = torch.tensor([[WORDS.index(word) for word in words.split()]])

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    with torch.no_grad():
        found = network.query(pixels, network.tokenised(["make it sand"]))
        states = model.text_encoder(input_ids=ids, attention_mask=torch.ones_like(ids))
        e = model.text_proj(states.last_hidden_state[:, 0])
        v = model.vision_proj(model.vision_model(pixels).last_hidden_state[:, 0])
        sides = [linear("text_projection_layer", e), linear("image_projection_layer", v)]
        h = torch.cat(sides, -1).clamp(min=0)
        lam = torch.sigmoid(linear("dynamic_scalar.3", linear("dynamic_scalar.0", h).clamp(min=0)))
        joint = linear("output_layer", linear("combiner_layer", h).clamp(min=0))
        wanted = torch.nn.functional.normalize(joint + lam * e + (1 - lam) * v, dim=-1)
        assert network.tokenised(["make it sand"])["texts"].tolist() == ids.tolist()
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
        torch.testing.assert_close(network.target(pixels), v, atol=1e-5, rtol=0)
    assert network.preprocess.mode == "targetpad"


@pytest.mark.parametrize("kind", ["clip", "blip"])
def test_a_folder_holds_all_of_a_network(kind: str, tmp_path: Path, clip: Path) -> None:
    """Saved and loaded: the same tokens, the same vectors."""
    import torch

    from models.composed.bi_network import build_combiner
    from models.composed.bi_settings import BiCombinerSettings
    from models.composed.checkpoint import load_composed, save_composed

    settings = BiCombinerSettings(projection=10, hidden=14, splitting="letters")
    network: Any = (
        build_combiner(_on_clip(clip), settings, 3).eval()
        if kind == "clip"
        else _load(tmp_path, _published(tmp_path))
    )
    place = tmp_path / "network"
    save_composed(
        place, "blip4cir-bi", network, settings, base={"model": "a"}, provenance={"zero_shot": True}
    )
    loaded, pixels = load_composed(place).network, torch.randn(2, 3, 32, 32)
    texts = network.tokenised(["make it sand", "blue"])
    assert loaded.tokenised(["make it sand", "blue"])["texts"].tolist() == texts["texts"].tolist()
    with torch.no_grad():
        for found, wanted in (
            (loaded.query(pixels, texts), network.query(pixels, texts)),
            (loaded.target(pixels), network.target(pixels)),
        ):
            torch.testing.assert_close(found, wanted)
    assert loaded.preprocess.fingerprint == network.preprocess.fingerprint


@pytest.mark.parametrize(
    ("file", "name", "shape"),
    [
        ("combiner.pt", "output_layer.bias", None),
        ("combiner.pt", "crossing.weight", (2, 2)),
        ("tuned_blip_best.pt", "text_proj.bias", None),
        ("tuned_blip_best.pt", "vision_proj.bias", (24,)),
        ("tuned_blip_best.pt", "text_proj.weight", (24, 47)),
        ("model_base.pth", "visual_encoder.norm.bias", None),
    ],
)
def test_a_damaged_file_is_refused_by_name(
    tmp_path: Path, file: str, name: str, shape: tuple[int, ...] | None
) -> None:
    import torch

    from models.checkpoints import UnusableCheckpoint

    files = _published(tmp_path)
    files[file].pop(name, None)
    if shape is not None:
        files[file][name] = torch.ones(*shape)
    with pytest.raises(UnusableCheckpoint, match=name):
        _load(tmp_path, files)
