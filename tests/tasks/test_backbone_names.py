"""Backbones that are folders: called by the folder, known by the content."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flows.profiles import resolve_profile
from storage.locations.location import Location
from storage.tables.table import Shard, open_table
from tasks.backbone_names import folders_of, recognised, recognised_name
from tasks.engines import backbone_name, encoder_fingerprint
from tasks.scoring.ledger import RESULTS_SPEC, read_ledger


def test_a_folder_gives_its_name_and_content_its_hash(tmp_path: Path) -> None:
    from tests.fakes.small_clip import write_small_clip

    first = resolve_profile("tiny", {"encoder.name": str(write_small_clip(tmp_path))}).encoder
    assert first.directory is not None
    shutil.copytree(first.directory, tmp_path / "mine, tuned")
    second = resolve_profile("tiny", {"encoder.name": str(tmp_path / "mine, tuned")}).encoder
    sha = str(encoder_fingerprint(first)["weights_sha256"])
    assert encoder_fingerprint(first) == encoder_fingerprint(second)
    assert backbone_name(first) == backbone_name(second) == f"local {sha[:8]}"
    assert recognised_name(first) == f"{first.directory.name} {sha[:8]}"
    assert recognised_name(second) == f"mine-tuned {sha[:8]}"


def test_what_was_trained_on_it_is_recognised_too() -> None:
    folders = {"local 0123abcd": "clip"}
    both = "ViT-B-32 openai & local 0123abcd + reformulation"
    assert recognised(both, folders) == "ViT-B-32 openai & clip 0123abcd + reformulation"
    assert recognised("local ffffffff", folders) == "local ffffffff"
    assert folders_of() == {}


@pytest.mark.parametrize(("now", "shown"), [({}, "b"), ({"local 0123abcd": "c"}, "c")])
def test_the_ledger_shows_the_last_name_for_old_rows_too(
    tmp_path: Path, now: dict[str, str], shown: str
) -> None:
    """Rows of earlier versions hold no folder's name; networks never did."""
    ledger = open_table(Location(str(tmp_path)), "results", RESULTS_SPEC)
    runs = [("1", {}), ("2", {"local 0123abcd": "a"}), ("3", {"local 0123abcd": "b"})]
    for run, folders in runs:
        protocol = json.dumps({"backbone_folders": folders} if folders else {})
        same = {"run": run, "method": "cvsi", "backbone": "local 0123abcd", "benchmark": "cirr",
                "split": "val", "category": "", "metric": "recall@1", "value": 1.0, "low": 0.0,
                "high": 2.0, "queries": 1, "coverage": 1.0, "protocol": protocol,
                "provenance": "{}", "created": f"2026-01-0{run}"}  # fmt: skip
        key = f"{run}" * 64
        rows = ledger.rows(result_key=[key], **{name: [value] for name, value in same.items()})
        ledger.publish(Shard.of([key]), rows)
    assert [e["backbone"] for e in read_ledger(str(tmp_path), now)] == [f"{shown} 0123abcd"] * 3
