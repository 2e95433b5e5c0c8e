"""Candidate re-ranking: both published files, training pairs and what is frozen."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.blip_files import HEAD_WIDTH, VOCABULARY, WORDS, original_state, random_blip

if TYPE_CHECKING:
    import torch

    from models.blip.candidate_filter import FilterNetwork
    from models.blip.candidate_rerank import RerankNetwork

TEXTS = ["make it blue", "a redder circle and the blue"]
IDS = [
    [WORDS.index(word) for word in words.split()]
    for words in ("make it blue", "a red ##der circle and the blue")
]


def _first_stage(folder: Path) -> Path:
    """A file as stage one saves it."""
    import torch

    state = {n: each for n, each in original_state(random_blip()).items() if "_m." not in n}
    state = {n: each for n, each in state.items() if "queue" not in n and "ptr" not in n}
    state["temp"] = torch.tensor(0.05)
    (folder / "vocab.txt").write_bytes(VOCABULARY)
    torch.save({"epoch": 3, "BLIP_Retrieval": state}, folder / "stage1.pt")
    return folder / "stage1.pt"


def _filter(folder: Path) -> FilterNetwork:
    from models.blip.candidate_filter import published_filter
    from models.blip.settings import EarlyFusionSettings

    return published_filter(_first_stage(folder), EarlyFusionSettings(), HEAD_WIDTH)


def _reranker(folder: Path) -> RerankNetwork:
    from models.blip.candidate_rerank import RerankNetwork
    from models.composed.candidate_rerank import RerankSettings

    return RerankNetwork.on_filter(_filter(folder), RerankSettings(), 5).eval()


def _published_pair(folder: Path) -> tuple[RerankNetwork, dict[str, torch.Tensor]]:
    """A re-ranker with random weights and the state of its second file."""
    import torch

    network = _reranker(folder)
    torch.manual_seed(7)
    for parameter in network.cross.parameters():
        parameter.data.normal_(std=0.3)
    state = {f"{name}": each for name, each in network.cross.state_dict().items()}
    tower = torch.load(folder / "stage1.pt", weights_only=True)["BLIP_Retrieval"]
    state |= {name: each for name, each in tower.items() if name.startswith("visual_encoder.")}
    state["text_encoder.embeddings.position_ids"] = torch.arange(40)[None]
    return network, state


def _load(folder: Path, state: dict[str, torch.Tensor]) -> RerankNetwork:
    import torch

    from models.blip.candidate_rerank import published_rerank
    from models.composed.candidate_rerank import RerankSettings

    torch.save({"BLIP_NLVR": state}, folder / "stage2.pt")
    return published_rerank(folder, RerankSettings(), HEAD_WIDTH)


def test_the_filter_equals_transformers_own_computation(tmp_path: Path) -> None:
    """[ENC] first, all image tokens as memory, text_proj of place 0; the file's temperature."""
    import torch

    network, model = _filter(tmp_path), random_blip()
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tokens = model.vision_model(pixels).last_hidden_state
        for row, body in enumerate(IDS):
            ids = torch.tensor([[len(WORDS) + 1, *body, WORDS.index("[SEP]")]])
            states = model.text_encoder(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                encoder_hidden_states=tokens[row : row + 1],
            ).last_hidden_state
            wanted = model.text_proj(states[0, 0])
            found = network.query(pixels, network.tokenised(TEXTS))[row]
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
            z_t = network.states(tokens, network.tokenised(TEXTS)["texts"])[row, : ids.shape[1]]
            torch.testing.assert_close(z_t, states[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(
            network.target(pixels), model.vision_proj(tokens[:, 0]), atol=1e-5, rtol=0
        )
    assert math.exp(-float(network.log_scale.detach())) == pytest.approx(0.05)
    assert network.preprocess.mode == "targetpad"


def test_published_files_of_both_stages_load_and_compute_the_same(tmp_path: Path) -> None:
    import torch

    network, state = _published_pair(tmp_path)
    loaded = _load(tmp_path, state).eval()
    texts, pixels = network.tokenised(TEXTS), torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        made = []
        for each in (network, loaded):
            images = each.image_tokens(pixels)
            made.append(each.scores(each.fused(images[:2], texts), texts, images))
    torch.testing.assert_close(made[1], made[0], atol=1e-5, rtol=0)
    assert made[0].std() > 0.1


def test_a_folder_holds_both_stages(tmp_path: Path) -> None:
    """Saved and loaded: the same scores, and the filter's own vectors."""
    import torch

    from models.composed.candidate_rerank import RerankSettings
    from models.composed.checkpoint import load_composed, save_composed

    network = _published_pair(tmp_path)[0].eval()
    place = tmp_path / "network"
    said = {"base": {"model": "a"}, "provenance": {"zero_shot": True}}
    save_composed(place, "candidate-rerank", network, RerankSettings(), **said)
    loaded: Any = load_composed(place).network
    texts, pixels = network.tokenised(TEXTS), torch.randn(2, 3, 32, 32)
    assert loaded.tokenised(TEXTS)["texts"].tolist() == texts["texts"].tolist()
    with torch.no_grad():
        made = []
        for each in (network, loaded):
            images = each.image_tokens(pixels)
            scores = each.scores(each.fused(images, texts), texts, images)
            made.append((scores, each.query(pixels, texts), each.target(pixels)))
    for found, wanted in zip(*made, strict=True):
        torch.testing.assert_close(found, wanted)
    assert loaded.preprocess.fingerprint == network.preprocess.fingerprint


def test_a_share_of_the_filters_score_is_added_and_kept_in_the_folder(tmp_path: Path) -> None:
    """Cosine over temperature by hand, for shared candidates and for each query's own."""
    import torch

    from models.blip.candidate_rerank import RerankNetwork
    from models.composed.candidate_rerank import RerankSettings
    from models.composed.checkpoint import load_composed, save_composed

    plain = _published_pair(tmp_path)[0].eval()
    settings = RerankSettings(filter_share=0.5)
    network = RerankNetwork.continuing(plain, settings).eval()
    place = tmp_path / "network"
    said = {"base": {"model": "a"}, "provenance": {"zero_shot": True}}
    save_composed(place, "candidate-rerank", network, settings, **said)
    loaded: Any = load_composed(place).network
    texts, pixels = network.tokenised(TEXTS), torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        images = network.image_tokens(pixels)
        fused = network.fused(images[:2], texts)
        queries, gallery = network.query(pixels[:2], texts), network.target(pixels)
        cosine = torch.nn.functional.cosine_similarity(queries[:, None], gallery, dim=-1)
        wanted = plain.scores(fused, texts, images) + 0.5 * cosine / 0.05
        for each in (network, loaded):
            own = images.expand(2, -1, -1, -1)
            for candidates in (images, own):
                found = each.scores(fused, texts, candidates)
                torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
    assert RerankNetwork.continuing(loaded, RerankSettings()).architecture() == plain.architecture()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cls_head.2.bias": None}, "cls_head.2.bias"),
        ({"text_encoder.pooler.dense.bias": (4,)}, "text_encoder.pooler.dense.bias"),
        ({"cls_head.0.weight": (3, 3)}, "cls_head.0.weight"),
        ({"visual_encoder.cls_token": (1, 1, 32)}, "another image tower"),
        ({"visual_encoder.norm.bias": None}, "visual_encoder.norm.bias"),
    ],
)
def test_a_damaged_second_file_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    import torch

    from models.checkpoints import UnusableCheckpoint

    _, state = _published_pair(tmp_path)
    for name, shape in change.items():
        state.pop(name, None)
        if shape:
            state[name] = torch.full(shape, 0.5)
    with pytest.raises(UnusableCheckpoint, match=said):
        _load(tmp_path, state)


def test_a_file_without_temperature_or_of_another_stage_is_refused(tmp_path: Path) -> None:
    import torch

    from models.blip.candidate_filter import published_filter
    from models.blip.settings import EarlyFusionSettings
    from models.checkpoints import UnusableCheckpoint

    path = _first_stage(tmp_path)
    state = torch.load(path, weights_only=True)["BLIP_Retrieval"]
    del state["temp"]
    torch.save({"BLIP_Retrieval": state}, path)
    with pytest.raises(UnusableCheckpoint, match="`temp`"):
        published_filter(path, EarlyFusionSettings(), HEAD_WIDTH)
    torch.save({"BLIP_NLVR": state}, path)
    with pytest.raises(UnusableCheckpoint, match="BLIP_Retrieval"):
        published_filter(path, EarlyFusionSettings(), HEAD_WIDTH)


def test_training_matches_every_query_with_every_target(tmp_path: Path) -> None:
    """The loss by pairs that are scored one at a time; gradients reach the cross-encoder alone."""
    import torch

    network = _reranker(tmp_path)
    torch.manual_seed(3)
    batch = {
        "references": torch.randn(2, 3, 32, 32),
        "targets": torch.randn(2, 3, 32, 32),
        "target_ids": torch.tensor([0, 1]),
        **network.tokenised(TEXTS),
    }
    loss = network.loss(batch)
    terms = []
    with torch.no_grad():
        for row in range(2):
            texts = network.tokenised(TEXTS[row : row + 1])
            fused = network.fused(network.image_tokens(batch["references"][row : row + 1]), texts)
            scores = [
                float(network.scores(fused, texts, network.image_tokens(each[None])))
                for each in batch["targets"]
            ]
            terms.append(math.log(sum(map(math.exp, scores))) - scores[row])
    assert float(loss) == pytest.approx(sum(terms) / 2, abs=1e-5)
    loss.backward()
    assert all(p.grad is None for p in network.filter.parameters())
    assert all(p.grad is not None for n, p in network.cross.named_parameters() if "self0" in n)
    trained = {id(p) for group in network.parameter_groups() for p in group.parameters}
    assert trained == {id(p) for p in network.cross.parameters()}


def test_training_with_negatives_chooses_among_each_querys_own_images(tmp_path: Path) -> None:
    """The loss by pairs that are scored one at a time."""
    import torch

    network = _reranker(tmp_path)
    torch.manual_seed(3)
    batch = {
        "references": torch.randn(2, 3, 32, 32),
        "targets": torch.randn(2, 3, 32, 32),
        "negatives": torch.randn(6, 3, 32, 32),
        "target_ids": torch.tensor([0, 0]),
        **network.tokenised(TEXTS),
    }
    with torch.no_grad():
        loss, terms = float(network.loss(batch)), []
        for row in range(2):
            texts = network.tokenised(TEXTS[row : row + 1])
            fused = network.fused(network.image_tokens(batch["references"][row : row + 1]), texts)
            images = [batch["targets"][row], *batch["negatives"][3 * row : 3 * row + 3]]
            scores = [
                float(network.scores(fused, texts, network.image_tokens(each[None])))
                for each in images
            ]
            terms.append(math.log(sum(map(math.exp, scores))) - scores[0])
    assert loss == pytest.approx(sum(terms) / 2, abs=1e-5)


@pytest.mark.parametrize("negatives", [{}, {"negatives": 6}])
def test_a_share_outside_the_loss_is_added_in_use_alone(
    tmp_path: Path, negatives: dict[str, int]
) -> None:
    import torch

    from models.blip.candidate_rerank import RerankNetwork
    from models.composed.candidate_rerank import RerankSettings

    plain = _reranker(tmp_path)
    learned, added = (
        RerankNetwork.continuing(
            plain, RerankSettings(filter_share=1, filter_in_loss=inside, dropout=0)
        ).eval()
        for inside in (True, False)
    )
    torch.manual_seed(3)
    batch = {
        name: torch.randn(count, 3, 32, 32)
        for name, count in {"references": 2, "targets": 2, **negatives}.items()
    }
    batch |= {"target_ids": torch.tensor([0, 1]), **plain.tokenised(TEXTS)}
    with torch.no_grad():
        loss, with_share, without = (float(n.loss(batch)) for n in (plain, learned, added))
        images = plain.image_tokens(batch["targets"])
        scores = [n.scores(n.fused(images, batch), batch, images) for n in (learned, added)]
    assert without == loss
    assert abs(with_share - loss) > 1e-3
    torch.testing.assert_close(*scores)
    assert "filter_in_loss" not in RerankSettings(filter_share=1).model_dump()
    assert RerankSettings(filter_in_loss=False).model_dump() == RerankSettings().model_dump()


def test_both_branches_start_as_the_filters_text_tower(tmp_path: Path) -> None:
    import torch

    network = _reranker(tmp_path)
    own = network.filter.towers.text_encoder.state_dict()
    twin = network.cross.text_encoder.state_dict()
    for layer in range(2):
        at = f"encoder.layer.{layer}"
        for branch in "01":
            torch.testing.assert_close(
                twin[f"{at}.crossattention.self{branch}.key.weight"],
                own[f"{at}.crossattention.self.key.weight"],
            )
        torch.testing.assert_close(
            twin[f"{at}.output.LayerNorm.weight"], own[f"{at}.output.LayerNorm.weight"]
        )
    twins = [network.cross.state_dict(), _reranker(tmp_path).cross.state_dict()]
    for name in twins[0]:
        torch.testing.assert_close(twins[0][name], twins[1][name])


def test_held_out_recall_is_that_of_the_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With scores that know the target every query within the filter's reach is solved."""
    import torch

    network = _reranker(tmp_path)
    torch.manual_seed(4)
    pixels = torch.randn(6, 3, 32, 32)
    batches = [
        {
            "references": pixels[rows],
            "targets": pixels[rows].flip(-1),
            "target_ids": torch.tensor(rows),
            **network.tokenised(["make it blue"] * 3),
        }
        for rows in ([0, 1, 2], [3, 4, 5])
    ]
    with torch.no_grad():
        wanted = [network.image_tokens(pixels[row : row + 1].flip(-1))[0] for row in range(6)]
        asked = iter(range(6))

        def knowing(fused: Any, texts: Any, images: torch.Tensor) -> torch.Tensor:
            own = wanted[next(asked)]
            return -(images - own).abs().sum((1, 2))[None]

        monkeypatch.setattr(network, "scores", knowing)
        found = network.held_out(batches)
        queries = torch.cat([network.query(b["references"], b) for b in batches])
        targets = torch.cat([network.target(b["targets"]) for b in batches])
        cosine = torch.nn.functional.cosine_similarity(queries[:, None], targets[None], dim=-1)
    assert found["score"] == found["recall_1"] == 1.0
    first = float((cosine.argmax(1) == torch.arange(6)).float().mean())
    assert found["filter_recall_1"] == pytest.approx(first)
