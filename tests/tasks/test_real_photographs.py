"""1,565 real photographs and 30 broken files through ingest, captions, features and search.

The small models know drawn things only, so the words mean nothing; no row may be lost.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from deployments.cli import main
from storage.collections.collection import Collection, ingest
from storage.locations.location import Location
from storage.tables.table import require_complete
from tasks.planner import gallery_stages
from tasks.stages.caption_features import CaptionFeatureStage
from tests.fakes.drawn import small_profile, small_settings
from tests.fakes.filled_tables import fill
from tests.fakes.pictures import broken_files

pytestmark = pytest.mark.slow

PHOTOGRAPHS = 1565


def ignore(count: int) -> None:
    """Nobody watches."""


def test_real_photographs_go_through_without_a_lost_row(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs = sorted((shared_data / "clothing" / "images").rglob("*.jpg"))
    assert len(photographs) == PHOTOGRAPHS
    broken = broken_files()
    folder = mixed_folder(tmp_path / "mixed", photographs, broken)

    profile = small_profile(tmp_path / "tables", captions=2, shard=256)
    location = Location(profile.root)
    summary = ingest(location, folder, "clothing")
    assert summary.files == PHOTOGRAPHS + 30
    assert sum(summary.failed.values()) == 30
    rows = Collection.open(location, "clothing").rows()
    assert rows["path"].to_list() == sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )
    found = dict(rows.filter(pl.col("status") != "ok").select("path", "status").iter_rows())
    assert found == {f"hat/{name}": status for name, (_, status) in broken.items()}
    good = rows.filter(pl.col("status") == "ok")
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in photographs}
    assert set(good["image_id"]) == digests
    classes = good.group_by("meta_class").len()
    assert dict(classes.iter_rows()) == {
        each.name: sum(1 for _ in each.iterdir())
        for each in (shared_data / "clothing" / "images").iterdir()
    }

    stages = gallery_stages(profile, "clothing")
    images, captions = stages["image"], stages["captions"]
    assert isinstance(captions, CaptionFeatureStage)
    for stage in (images, captions.captions, captions):
        fill(stage)
        table = stage.table()
        assert require_complete(table, sorted(digests)).ok == len(digests)
        assert table.read(["status"])[table.schema.key].to_list() == sorted(digests)
        assert table.verify() == []
    said = captions.captions.table().read(["captions", "n"])
    assert said["n"].unique().to_list() == [2]
    assert all(len(texts) == 2 and all(texts) for texts in said["captions"].to_list())

    asked = photographs[700]
    settings = small_settings(profile.root, captions=2, shard=256)
    options = [f"--set={key}={value}" for key, value in settings.items()]
    command = ["search", "--gallery=clothing", f"--image={asked}", "--text=in red", "--json"]
    alike = ["--method=image-only", "--include-reference", "-k5"]
    assert main([*command, *alike, *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["gallery_size"] == len(digests)
    own = next(hit for hit in result["hits"] if hit["score"] == pytest.approx(1.0, abs=1e-4))
    assert own["rank"] == 1
    assert main([*command, "-k5", *options]) == 0
    assert len(json.loads(capsys.readouterr().out)["hits"]) == 5


def mixed_folder(
    folder: Path, photographs: list[Path], broken: dict[str, tuple[bytes, str]]
) -> Path:
    """The photographs in their class folders, the broken files among the hats."""
    for path in photographs:
        copy = folder / path.parent.name / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    for name, (data, _) in broken.items():
        (folder / "hat" / name).write_bytes(data)
    return folder
