"""`cirflow import triplets` and `export triplets`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deployments.cli import main
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.training.triplet_sets import parse_triplet_set
from tests.fakes.pictures import jpeg


def test_a_set_is_imported_for_training_and_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, name in enumerate(("0000012.png", "0000345.png")):
        (tmp_path / "laion").mkdir(exist_ok=True)
        (tmp_path / "laion" / name).write_bytes(jpeg(seed))
    root, out = str(tmp_path / "root"), tmp_path / "triplets.json"
    ingest(Location(root), tmp_path / "laion", "laion")
    source = tmp_path / "laion_llm_info.json"
    laion = {"12": {"tgt_image_id": "345", "relative_cap": "make it red", "tgt_cap": "a red car"}}
    source.write_text(json.dumps(laion))
    given = ["import", "triplets", str(source), "--form", "transagg", "--root", root]
    assert main([*given, "--collection", "laion", "--out", str(out)]) == 0
    assert "1 record: 1 ok, 0 repeated and left out" in capsys.readouterr().out
    (triplet,) = parse_triplet_set(str(out)).triplets()
    assert (triplet.text, triplet.target_caption) == ("make it red", "a red car")
    again = tmp_path / "again.json"
    written = ["--form", "transagg", "--out", str(again)]
    assert main(["export", "triplets", str(out), *written]) == 0
    assert json.loads(again.read_text()) == [
        {
            "ref_image_id": "0000012",
            "tgt_image_id": "0000345",
            "relative_cap": "make it red",
            "tgt_cap": "a red car",
        }
    ]
    assert main([*given, "--collection", "laion", "--out", str(out)]) == 0  # once more
    before = source.read_text()
    assert main([*given, "--collection", "laion", "--out", str(source)]) == 2
    assert "exists and is not a reference to triplets" in capsys.readouterr().err
    assert source.read_text() == before
    assert main([*given, "--collection", "lain", "--out", str(out)]) == 2
    assert "there is no collection 'lain'" in capsys.readouterr().err
    assert main([*given[:3], "--form", "lasko", "--collection", "laion", "--out", str(out)]) == 2
    assert "unknown form of triplets 'lasko'; did you mean 'lasco'" in capsys.readouterr().err
    other = [*given, "--collection", "laion", "--out", str(out), "--fields", "caption"]
    assert main(other) == 2
    assert "--fields is OURS=THEIRS, the name that a field has" in capsys.readouterr().err
