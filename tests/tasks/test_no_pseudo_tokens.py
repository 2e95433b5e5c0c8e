"""Backbones whose text towers take no pseudo tokens are known before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.profiles import resolve_profile
from flows.requests.checks import require_methods
from flows.requests.train_mapping import train_mapping
from models.encoders.facts import why_no_pseudo_tokens
from models.encoders.spec import EncoderSpec
from tasks.methods import left_out, runnable_methods

COCA = {"encoder.name": "coca_ViT-B-32", "encoder.pretrained": "laion2b_s13b_b90k"}


def test_methods_with_pseudo_tokens_are_left_out_with_the_reason() -> None:
    usual, coca = resolve_profile("tiny", {}), resolve_profile("tiny", COCA)
    lost = set(runnable_methods(usual)) - set(runnable_methods(coca))
    assert {"lincir", "cvsi", "cvsi-instructcir"} <= lost
    assert {"image-text-sum", "cirevl", "instructcir"} <= set(runnable_methods(coca))
    assert all("appends a class token" in left_out(coca)[name] for name in lost)
    with pytest.raises(
        ValueError, match=r"lincir does not run here: coca_ViT-B-32 takes no pseudo tokens"
    ):
        require_methods(coca, ["image-only", "lincir"])


def test_a_mapping_network_for_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("a red cat\n")
    given = {**COCA, "root": str(tmp_path / "root")}
    with pytest.raises(ValueError, match=r"takes no pseudo tokens.*choose another backbone"):
        train_mapping(captions=str(tmp_path / "captions.txt"), settings=given)


@pytest.mark.parametrize(
    ("name", "obstacle"),
    [
        ("roberta-ViT-B-32", "one of transformers'"),
        ("coca_ViT-B-32", "class token"),
        ("ViT-B-16-SigLIP2-256", ""),
        ("MobileCLIP2-S0", ""),
        ("ViT-H-14-worldwide", ""),
        ("PE-Core-B-16", ""),
        ("EVA02-B-16", ""),
        ("convnext_base_w", ""),
        ("ViT-L-14-CLIPA", ""),
        ("no such backbone", ""),
        ("hf-hub:no/such-backbone", ""),
    ],
)
def test_the_configuration_says_it(name: str, obstacle: str) -> None:
    found = why_no_pseudo_tokens(EncoderSpec(name=name))
    assert obstacle in found
    assert bool(found) == bool(obstacle)
