"""CoVR's and the CASE-style networks: losses against naive formulas, both kinds of towers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

TEXTS = ["Make it RED.", "the circle, and a red circle", "blue"]


def naive(s: torch.Tensor, alpha: float, beta: float, form: str) -> float:
    """HN-NCE by loops over rows, as its definition stands."""
    count = len(s)
    total = 0.0

    def row(s: torch.Tensor, i: int, divisors: list[float]) -> float:
        inside = alpha * math.exp(s[i, i])
        for j in range(count):
            if j != i:
                weight = (count - 1) * math.exp(beta * s[i, j]) / divisors[j]
                inside += weight * math.exp(s[i, j])
        return -float(s[i, i]) + math.log(inside)

    for matrix, quirk in ((s, form == "code"), (s.T, False)):
        sums = [
            sum(math.exp(beta * matrix[i, k]) for k in range(count) if k != i) for i in range(count)
        ]
        for i in range(count):
            total += row(matrix, i, sums if quirk else [sums[i]] * count) / count
    return total


@pytest.mark.parametrize("form", ["paper", "code"])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.5), (0.7, 1.5), (1.0, 0.0)])
def test_hn_nce_is_its_formula(form: Any, alpha: float, beta: float) -> None:
    import torch
    from torch.nn import functional

    from models.blip.hard_negatives import hn_nce

    torch.manual_seed(0)
    queries, targets = torch.randn(2, 16, 8)
    found = hn_nce(queries, targets, 1 / 0.07, alpha=alpha, beta=beta, form=form)
    cosines = functional.normalize(queries, dim=-1) @ functional.normalize(targets, dim=-1).T
    expected = naive((cosines / 0.07).double(), alpha, beta, form)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_without_sharpness_hn_nce_is_infonce_both_ways() -> None:
    import torch
    from torch.nn import functional

    from models.blip.hard_negatives import hn_nce

    torch.manual_seed(0)
    queries, targets = torch.randn(2, 6, 8)
    logits = functional.normalize(queries, dim=-1) @ functional.normalize(targets, dim=-1).T / 0.07
    own = torch.arange(6)
    both = functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)
    assert float(hn_nce(queries, targets, 1 / 0.07, beta=0.0)) == pytest.approx(float(both))


def test_the_nearest_negative_weighs_more_with_more_sharpness() -> None:
    import torch

    from models.blip.hard_negatives import one_direction

    def pulls(beta: float) -> list[float]:
        """The loss's growth with the similarity of the first query to its two negatives."""
        similarity = torch.tensor([[4.5, 3.5, 0.5], [0, 4.5, 0], [0, 0, 4.5]], requires_grad=True)
        own = torch.eye(3, dtype=torch.bool)
        loss = one_direction(similarity, own, own, alpha=1.0, beta=beta)
        (gradient,) = torch.autograd.grad(loss[0], similarity)
        return gradient[0, 1:].tolist()

    shares = torch.tensor([4.5, 3.5, 0.5]).softmax(dim=0)
    assert pulls(0.0) == pytest.approx(shares[1:].tolist(), abs=1e-6)
    assert pulls(2.0)[0] > pulls(0.5)[0] > pulls(0.0)[0]
    assert pulls(2.0)[1] < pulls(0.0)[1]


def test_repeated_targets_are_no_negatives() -> None:
    import torch

    from models.blip.hard_negatives import hn_nce

    torch.manual_seed(0)
    queries, targets = torch.randn(2, 5, 8)
    targets[4] = targets[0]
    ids = torch.tensor([7, 8, 9, 10, 7])
    # Query 0 and 4 each leave the other's equal target out, and so do the targets.
    masked = float(hn_nce(queries, targets, 5.0, ids))
    assert masked < float(hn_nce(queries, targets, 5.0))
    alone = queries[:2].clone().requires_grad_(True)
    loss = hn_nce(alone, targets[:2], 5.0, torch.tensor([3, 3]))
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-6)
    loss.backward()
    assert alone.grad is not None
    assert bool(alone.grad.isfinite().all())


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_a_published_covr_computes_what_transformers_does(tmp_path: Path, prefix: str) -> None:
    import torch

    from models.blip.covr import published_covr
    from models.composed.covr import CovrSettings
    from tests.fakes.blip_files import covr_file, published_blip

    path = covr_file(tmp_path, prefix)
    network = published_covr(path, CovrSettings())
    pixels = torch.randn(3, 3, 32, 32)
    read = network.tokenised(TEXTS)
    model = published_blip()
    with torch.no_grad():
        tokens = model.vision_model(pixels).last_hidden_state
        states = model.text_encoder(
            read["texts"], attention_mask=(read["texts"] != 0).long(), encoder_hidden_states=tokens
        ).last_hidden_state
        assert torch.allclose(network.query(pixels, read), model.text_proj(states[:, 0]), atol=1e-5)
        expected = model.vision_proj(tokens[:, 0])
        assert torch.allclose(network.target(pixels), expected, atol=1e-5)
    assert read["texts"][0].tolist() == [18, 5, 6, 9, 3, 0, 0, 0, 0]  # [ENC] make it red [SEP]
    config = network.preprocess.config
    assert (config.resize_mode, config.size, config.interpolation) == ("squash", 32, "bicubic")


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    from models.blip.covr import published_covr
    from models.checkpoints import UnusableCheckpoint
    from models.composed.covr import CovrSettings
    from tests.fakes.blip_files import covr_file

    path = covr_file(tmp_path)
    with (tmp_path / "vocab.txt").open("a") as file:
        file.write("surplus\n")
    with pytest.raises(UnusableCheckpoint, match=r"has 19 words, vocab.txt next to it makes 20"):
        published_covr(path, CovrSettings())
    (tmp_path / "vocab.txt").unlink()
    with pytest.raises(UnusableCheckpoint, match=r"brings no tokenizer; put vocab.txt"):
        published_covr(path, CovrSettings())


def test_covr_takes_the_reference_out_on_every_benchmark() -> None:
    from models.retrieval.methods import METHODS

    assert METHODS["covr"].settings.excludes_reference(own_rule=False)
    assert not METHODS["case"].settings.excludes_reference(own_rule=False)
    assert METHODS["case"].settings.excludes_reference(own_rule=True)


def batch_of(network: Any) -> dict[str, torch.Tensor]:
    import torch

    torch.manual_seed(1)
    return {
        "references": torch.randn(3, 3, 32, 32),
        "targets": torch.randn(3, 3, 32, 32),
        "target_ids": torch.tensor([0, 1, 2]),
        "reference_ids": torch.tensor([3, 4, 5]),
        **network.tokenised(TEXTS),
    }


def built(folder: Path, name: str, **settings: Any) -> Any:
    from models.composed.registry import system
    from models.encoders.spec import EncoderSpec
    from tests.fakes.small_networks import write_clip

    if not (folder / "open_clip_config.json").exists():
        write_clip(folder)
    found = system(name)
    spec = EncoderSpec(name=str(folder), preprocess="clip", device="cpu")
    return found.build(spec, found.settings(**settings), 0)


def test_on_a_backbone_targets_are_the_backbones_features(tmp_path: Path) -> None:
    import torch

    from models.encoders.loading import load_encoder
    from models.encoders.spec import EncoderSpec

    network = built(tmp_path, "covr")
    clip = load_encoder(EncoderSpec(name=str(tmp_path), preprocess="clip", device="cpu"))
    pixels = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = clip.model.encode_image(pixels)
        assert torch.allclose(network.target(pixels), expected, atol=1e-5)
    trained = {name for group in network.parameter_groups() for name in [group.name]}
    assert trained == {"new_decay", "new_no_decay"}
    frozen = [name for name, each in network.named_parameters() if not each.requires_grad]
    assert frozen
    assert all("vision" in name for name in frozen)
    assert not network.train().towers.vision_model.training
    assert network.training


def test_the_reference_and_the_text_both_matter(tmp_path: Path) -> None:
    import torch

    network = built(tmp_path, "covr").eval()
    batch = batch_of(network)
    with torch.no_grad():
        query = network.query(batch["references"], batch)
        other = network.query(batch["references"].flip(0), batch)
        assert not torch.allclose(query[0], other[0], atol=1e-3)
        words = network.query(batch["references"], network.tokenised(TEXTS[::-1]))
        assert not torch.allclose(query[0], words[0], atol=1e-3)
        alone = network.query(batch["references"][2:], network.tokenised(TEXTS[2:]))
        assert torch.allclose(alone, query[2:], atol=1e-5)  # no padding is read


def test_case_without_reversed_queries_is_covr_with_plain_negatives(tmp_path: Path) -> None:
    import torch
    from torch.nn import functional

    covr = built(tmp_path, "covr", beta=0.0, dropout=0.0)
    case = built(tmp_path, "case", rq_weight=0.0, dropout=0.0)
    batch = batch_of(case)
    assert case.loss(batch).item() == pytest.approx(covr.loss(batch).item(), rel=1e-6)
    both = built(tmp_path, "case", rq_weight=0.4, dropout=0.0)
    with torch.no_grad():
        towers, ids = both.towers, batch["reversed_texts"]
        reversed_queries = towers.text_vector(
            ids, ids != both.parts.words.pad, towers.image_tokens(batch["targets"])
        )
        cosines = (
            functional.normalize(reversed_queries, dim=-1)
            @ functional.normalize(both.target(batch["references"]), dim=-1).T
        )
        logits, own = cosines / 0.07, torch.arange(3)
        term = functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)
        assert float(both.loss(batch)) == pytest.approx(
            float(case.loss(batch)) + 0.4 * float(term), rel=1e-5
        )
    marked, plain = batch["reversed_texts"], batch["texts"]
    assert marked[:, 1].tolist() == [both.parts.words.decode] * 3
    assert marked[:, 2:].tolist() == plain[:, 1:].tolist()


@pytest.mark.parametrize("name", ["covr", "case"])
def test_a_saved_folder_is_the_network(tmp_path: Path, name: str) -> None:
    import torch

    from models.composed.checkpoint import load_composed, save_composed

    network = built(tmp_path / "clip", name, text_layers=2).eval()
    save_composed(
        tmp_path / "saved", name, network, network.settings, base={}, provenance={"seed": 0}
    )
    loaded = load_composed(tmp_path / "saved").network
    batch = batch_of(network)
    with torch.no_grad():
        expected = network.query(batch["references"], batch)
        found = loaded.query(batch["references"], loaded.tokenised(TEXTS))
        assert torch.equal(found, expected)
        assert torch.equal(loaded.target(batch["targets"]), network.target(batch["targets"]))


def test_a_published_covr_is_saved_and_loaded_with_its_vocabulary(tmp_path: Path) -> None:
    import torch

    from models.blip.covr import published_covr
    from models.composed.checkpoint import load_composed, save_composed
    from models.composed.covr import CovrSettings
    from tests.fakes.blip_files import covr_file

    settings = CovrSettings()
    network = published_covr(covr_file(tmp_path), settings)
    save_composed(tmp_path / "saved", "covr", network, settings, base={}, provenance={})
    loaded = load_composed(tmp_path / "saved").network
    pixels = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = network.query(pixels, network.tokenised(TEXTS))
        assert torch.equal(loaded.query(pixels, loaded.tokenised(TEXTS)), expected)


def test_recomputed_layers_give_the_same_gradients(tmp_path: Path) -> None:
    """With dropout: each layer runs twice, and draws the same."""
    import torch

    found, runs = [], []
    for enabled in (False, True):
        network = built(tmp_path, "case", text_layers=2).train()
        network.set_gradient_checkpointing(enabled)
        calls: list[int] = []
        attention = network.towers.text_encoder.encoder.layer[0].attention
        attention.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        batch = batch_of(network)
        torch.manual_seed(2)
        network.loss(batch).backward()
        trained = [each for each in network.parameters() if each.requires_grad]
        assert all(each.grad is not None for each in trained)
        found.append([each.grad for each in trained])
        runs.append(len(calls))
    assert runs == [2, 4]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
