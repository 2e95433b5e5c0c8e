"""A root that an earlier version filled is used as it is: no row is made again.

`tests/data/earlier_root.tar.xz` holds a CIRR-like drawn benchmark and the tables of its finished
evaluation by seven methods, written by version 0.1.0 before stages knew their inputs.
"""

from __future__ import annotations

import importlib.metadata
import tarfile
from pathlib import Path

import polars as pl
import pytest

from flows.profiles import resolve_profile
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.planner import plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder
from tasks.scoring.ledger import read_ledger
from tasks.scoring.scores import record_scores, score_ranking
from tasks.stages.stage import in_order

METHODS = ("image-only", "lincir", "cirevl", "ldre", "cvsi", "instructcir", "cvsi-instructcir")
TRANSFORMERS = "5.19.0"
"""Version that captioned; it is part of the captions' identity."""


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The tables of the earlier version, at a place of this test's own."""
    found = importlib.metadata.version("transformers")
    if found != TRANSFORMERS:
        pytest.skip(f"captions of transformers {TRANSFORMERS} are not those of {found}")
    archive = Path(__file__).parents[1] / "data" / "earlier_root.tar.xz"
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path, filter="data")
    tables = tmp_path / "tables"
    if request.param == "local":
        return str(tables)
    there: Location = request.getfixturevalue("s3_location")
    for file in tables.rglob("*"):
        if file.is_file():
            there.create(str(file.relative_to(tables)), file.read_bytes())
    return there.root


def test_a_finished_evaluation_of_an_earlier_version_makes_nothing(
    root: str, tmp_path: Path
) -> None:
    profile = resolve_profile("tiny", {"root": root})
    ref = BenchmarkRef(name="cirr", root=str(tmp_path / "world" / "cirr"), split="val")
    before = {entry["run"]: entry["metrics"] for entry in read_ledger(root)}
    assert len(before) == len(METHODS)
    ingest(Location(root), image_folder(ref.load()), ref.collection_name)
    plan = plan_evaluation(profile, ref, METHODS)
    stages = in_order(plan.rankings)
    kinds = {type(stage).__name__ for stage in stages}
    assert len(kinds) == 8
    for stage in stages:
        missing = stage.existing_table().plan(stage.planned_keys(), stage.shard_size)
        assert missing.shards == (), stage.title
        assert missing.before.ok == missing.planned > 0, stage.title
    scored = [(stage, score_ranking(stage)) for stage in plan.rankings]
    assert record_scores(scored) == 0
    for stage, scores in scored:
        recorded = {name: cell["value"] for name, cell in before[stage.spec_key].items()}
        assert recorded == dict(scores.metrics)
    assert len(pl.concat([s.table().read(["status"]) for s in plan.rankings])) == 7 * 4
