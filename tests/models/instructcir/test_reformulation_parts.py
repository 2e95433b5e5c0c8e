"""Backbones that cannot become reformulation networks are refused, with the reason."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest


def on_meta(name: str) -> Any:
    import open_clip
    import torch

    from models.instructcir.parts import bare_backbone

    config = copy.deepcopy(open_clip.get_model_config(name))
    with torch.device("meta"):
        if "multimodal_cfg" in config:
            config.pop("custom_text", None)
            return open_clip.CoCa(**config)
        return bare_backbone(config)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("RN50", "ModifiedResNet"),
        ("ViT-B-16-SigLIP", "TimmModel"),
        ("coca_ViT-B-32", "appends a class token"),
    ],
)
def test_unsupported_backbones(name: str, reason: str) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    from models.instructcir.parts import BackboneUnsupported, check_backbone

    with pytest.raises(BackboneUnsupported, match=reason) as caught:
        check_backbone(on_meta(name), SimpleTokenizer(), name)
    assert name in str(caught.value)
    assert "ViT-B-32" in str(caught.value)


def test_a_refusal_names_every_obstacle() -> None:
    from models.instructcir.parts import BackboneUnsupported, check_backbone

    with pytest.raises(BackboneUnsupported) as caught:
        check_backbone(on_meta("ViT-B-16-SigLIP2-256"), object(), "mine")
    for obstacle in ("TimmModel", "tokenizer (object)", "attend causally", "pooled by 'last'"):
        assert obstacle in str(caught.value)


def test_foreign_text_towers_are_refused(tmp_path: Path) -> None:
    from models.instructcir.parts import BackboneUnsupported, check_backbone
    from tests.fakes.small_networks import small_network, write_clip

    folder = write_clip(tmp_path, text={"pool_type": "last"})
    with pytest.raises(BackboneUnsupported, match="pooled by 'last'"):
        small_network(folder)
    with pytest.raises(BackboneUnsupported, match="not CLIP's byte-pair tokenizer"):
        check_backbone(on_meta("ViT-B-32"), object(), "ViT-B-32")


def test_an_image_tower_without_one_embedding_is_refused(tmp_path: Path) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    from models.instructcir.parts import BackboneUnsupported, bare_backbone, check_backbone
    from tests.fakes.small_clip import CONFIG

    architecture = copy.deepcopy(CONFIG["model_cfg"])
    architecture["vision_cfg"]["pool_type"] = "none"
    with pytest.raises(BackboneUnsupported, match="no single embedding"):
        check_backbone(bare_backbone(architecture), SimpleTokenizer(), "mine")


def test_own_byte_pair_file_travels_with_the_network(tmp_path: Path) -> None:
    from models.instructcir.parts import make_tokens
    from tests.fakes.small_clip import write_small_clip
    from tests.fakes.small_networks import small_network

    folder = write_small_clip(tmp_path, merges=["r e", "re d</w>"])
    network = small_network(folder)
    again = make_tokens(network.parts.architecture, network.parts.bpe)
    assert network.parts.bpe == (folder / "bpe.txt.gz").read_bytes()
    # Two special tokens and "red" in one; CLIP's own byte pairs would give other ids.
    assert again.row("red").ids == network.parts.tokens.row("red").ids
    assert len(again.row("red").ids) == 3
    assert again.end == 515
    ids = network.text_ids(["red", "a red red"])
    assert ids.shape[1] == len(again.row("a red red").ids)
    assert ids[0].tolist()[:3] == list(again.row("red").ids)
