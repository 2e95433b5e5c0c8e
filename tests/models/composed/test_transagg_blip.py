"""TransAgg on BLIP's towers: the published layout against transformers' own computation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from models.checkpoints import UnusableCheckpoint
from models.composed.transagg_settings import TransAggSettings
from tests.fakes.blip_files import HEAD_WIDTH, VOCABULARY, original_state, random_blip
from tests.fakes.small_networks import pixels

if TYPE_CHECKING:
    import torch
    from transformers import BlipForImageTextRetrieval

    from models.composed.transagg_blip import BlipTransAgg

SETTINGS = TransAggSettings(feedforward=32)
TEXTS = ["make it blue", "redder", "a red circle and the blue circle"]


def published_parts(
    model: BlipForImageTextRetrieval,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The two halves of a published file: BLIP under its own names, and a random head."""
    import torch

    from models.composed.transagg_head import TransAggHead

    torch.manual_seed(5)
    return original_state(model), TransAggHead(24, SETTINGS).state_dict()


def loaded(folder: Path, model: BlipForImageTextRetrieval) -> BlipTransAgg:
    from models.composed.transagg_blip import published_on_blip

    (folder / "vocab.txt").write_bytes(VOCABULARY)
    towers, head = published_parts(model)
    return published_on_blip(towers, head, folder / "blip.pt", SETTINGS, HEAD_WIDTH)


def test_a_published_file_computes_as_transformers_does(tmp_path: Path) -> None:
    import torch

    model = random_blip()
    network = loaded(tmp_path, model)
    ids = network.tokenised(TEXTS)["texts"]
    assert ids[:, 0].tolist() == [network.words.classify] * 3
    padding = ids == network.words.pad
    with torch.no_grad():
        image = model.vision_proj(model.vision_model(pixels(3)).last_hidden_state)
        states = model.text_encoder(ids, attention_mask=(~padding).long()).last_hidden_state
        text = model.text_proj(states)
        torch.testing.assert_close(network.target(pixels(3)), image[:, 0], atol=1e-5, rtol=1e-5)
        head = network.head
        joined = torch.cat([text, head.sep_token.expand(3, 1, -1), image], dim=1)
        mask = torch.nn.functional.pad(padding, (0, 1 + image.shape[1]))
        fused = head.fusion(joined, src_key_padding_mask=mask)
        both = torch.cat([fused[:, ids.shape[1] + 1], fused[:, 0]], dim=1)
        u = head.output_layer(head.combiner_layer(both).relu())
        w = head.weighted_layer(u)
        expected = w[:, :1] * text[:, 0] + w[:, 1:2] * u + w[:, 2:] * image[:, 0]
        found = network.query(pixels(3), {"texts": ids})
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_folder_of_it_loads_again(tmp_path: Path) -> None:
    import torch

    from models.composed.checkpoint import load_composed, save_composed

    network = loaded(tmp_path, random_blip())
    save_composed(
        tmp_path / "out", "transagg", network, SETTINGS, base={}, provenance={"zero_shot": True}
    )
    again = load_composed(tmp_path / "out").network
    read = network.tokenised(TEXTS)
    with torch.no_grad():
        torch.testing.assert_close(again.query(pixels(3), read), network.query(pixels(3), read))
    assert again.preprocess.fingerprint == network.preprocess.fingerprint


def test_whole_files_are_told_apart_and_refused_by_name(tmp_path: Path) -> None:
    import torch

    from models.composed.transagg_network import published

    towers, head = published_parts(random_blip())
    file = tmp_path / "transagg.pt"
    torch.save({f"pretrained_model.{n}": t for n, t in towers.items()} | head, file)
    with pytest.raises(UnusableCheckpoint, match=r"put vocab\.txt of bert-base-uncased"):
        published(file, SETTINGS)


def test_a_new_head_trains_on_the_towers_of_an_imported_blip(tmp_path: Path) -> None:
    """The text tower learns but for what only a text over an image passes through."""
    import torch

    from models.blip.word_pieces import WordPieces
    from models.composed.covr import CovrSettings
    from models.composed.transagg_blip import on_early_fusion

    (tmp_path / "vocab.txt").write_bytes(VOCABULARY)
    from models.blip.covr import CovrNetwork

    state = original_state(random_blip())
    words = WordPieces(VOCABULARY)
    start = CovrNetwork.of_state(state, words, tmp_path, CovrSettings(), head_width=HEAD_WIDTH)
    network = on_early_fusion(start, SETTINGS, seed=0).train()
    batch = {
        "references": pixels(3),
        "targets": pixels(3, seed=2),
        "target_ids": torch.arange(3),
        **network.tokenised(TEXTS),
    }
    network.loss(batch).backward()
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {name for name, p in network.named_parameters() if p.grad is not None}
    assert {name.split(".")[0] for name in trained} == {"towers", "head"}
    assert not any("vision" in name or "crossattention" in name for name in trained)
    assert [group.name for group in network.parameter_groups()] == [
        "pretrained_decay",
        "pretrained_no_decay",
        "new_decay",
        "new_no_decay",
    ]
