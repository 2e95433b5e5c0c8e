"""Names in a list of runs say what runs, so that two of a flow can be told apart."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest

from flows.forms import Captioning, Clip

TRIPLETS = "out/triplets/triplets.json"
SET = {"root": "tables", "spec_key": "k", "collections": ["photos", "shirts"], "count": 9}


@pytest.mark.parametrize(
    ("flow", "given", "name"),
    [
        ("backfill_captions", {"collection": "all"}, "captions of all"),
        (
            "backfill_captions",
            {"collection": "photos", "kind": "instructcir", "dry_run": True, "profile": "small"},
            "dry run: instructcir captions of photos (small)",
        ),
        (
            "backfill_captions",
            {"collection": "p", "captioning": Captioning(engine="llava", model="org/llava-7b")},
            "captions of p by llava-7b",
        ),
        ("embed_gallery", {"collection": "photos", "methods": ("cvsi",)}, "embed photos"),
        (
            "embed_gallery",
            {"collection": "p", "methods": ["lincir"], "backbone": {"name": "ViT-L-14"}},
            "embed p for lincir on ViT-L-14",
        ),
        (
            "score_benchmark",
            {"benchmark": "cirr", "split": "val", "profile": "mine.toml"},
            "score cirr val (mine.toml)",
        ),
        (
            "score_benchmark",
            {"benchmark": "circo", "split": "test", "methods": ["cvsi", "lincir"]},
            "score circo test: cvsi, lincir",
        ),
        ("sweep_fusion", {"benchmark": "cirr"}, "sweep cvsi on cirr val"),
        (
            "rerun_backbones.rerun_backbone",
            {"backbone": {}, "benchmarks": [{"name": "cirr", "folder": "x"}], "profile": "small"},
            "the profile's backbone on cirr val (small)",
        ),
        ("evaluate_world", {"seeds": [0, 1]}, "drawn worlds 0, 1"),
        (
            "evaluate_world",
            {"seeds": [5], "harder": True, "methods": ["cvsi"]},
            "harder drawn worlds 5: cvsi",
        ),
        ("finetune_rewriter", {"pairs": "pairs.jsonl"}, "tune rewriter with pairs.jsonl"),
        ("generate_triplets", {"collections": list("abcd"), "count": 5}, "5 triplets of 4 of them"),
        ("train_mapping", {"collection": "photos"}, "train lincir on captions of photos"),
        ("train_mapping", {"captions": "data/c.txt"}, "train lincir on c.txt"),
        (
            "train_mapping",
            {"system": "searle", "collection": "p", "backbone": Clip(name="ViT-L-14")},
            "train searle on p on ViT-L-14",
        ),
        ("train_composed", {"system": "covr", "triplets": TRIPLETS}, f"train covr with {TRIPLETS}"),
        (
            "train_reformulation",
            {"triplets": SET, "n": 5},
            "train InstructCIR with photos, shirts, first 5",
        ),
    ],
)
def test_a_name_says_what_runs(
    flow: str, given: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows import run_names

    module, _, function = flow.partition(".")
    found = getattr(importlib.import_module(f"flows.{module}"), function or module)
    monkeypatch.setattr(
        run_names, "runtime", SimpleNamespace(flow_run=SimpleNamespace(parameters=given))
    )
    assert found.flow_run_name() == name
