"""A root that an earlier version filled is used as it is: no model is asked again.

Replies of a text generator are read again by the present reader; what is made from them has a new
key. All other tables are complete as they are. `tests/data/earlier_root.tar.xz` holds a CIRR-like
drawn benchmark and the tables of its finished evaluation by seven methods, written by version 0.1.0
before stages knew their inputs.
"""

from __future__ import annotations

import importlib.metadata
import tarfile
from pathlib import Path

import polars as pl
import pytest

from flows.profiles import resolve_profile
from models.generators.answers import EMPTY_ANSWER
from models.generators.transformers import TransformersSettings
from models.protocols import EngineUnavailable
from storage.collections.collection import ingest
from storage.locations.location import Location
from storage.tables.plans import Shard
from storage.tables.table import open_table
from tasks.at_hand import require_hosts_of_missing
from tasks.planner import EvaluationPlan, plan_evaluation
from tasks.query_sets import BenchmarkRef, image_folder
from tasks.scoring.ledger import read_ledger
from tasks.scoring.scores import record_scores, score_ranking
from tasks.stages.rewrites import RewriteStage
from tasks.stages.stage import Stage, in_order
from tests.fakes.filled_tables import fill

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


def planned(root: str, tmp_path: Path) -> EvaluationPlan:
    """The evaluation that filled the root, as the present version plans it."""
    profile = resolve_profile("tiny", {"root": root})
    ref = BenchmarkRef(name="cirr", root=str(tmp_path / "world" / "cirr"), split="val")
    ingest(Location(root), image_folder(ref.load()), ref.collection_name)
    return plan_evaluation(profile, ref, METHODS)


def reads_replies(stage: Stage) -> bool:
    """Whether a stage's rows follow from replies of a text generator."""
    return any(isinstance(each, RewriteStage) for each in in_order([stage]))


def test_a_finished_evaluation_of_an_earlier_version_asks_no_model(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect import flow

    from flows.running import RunLog, run_stage
    from tasks.unrecorded import WorkToDo, run_unrecorded

    before = {entry["method"]: entry["metrics"] for entry in read_ledger(root)}
    assert len(before) == len(METHODS)
    plan = planned(root, tmp_path)
    stages = in_order(plan.rankings)
    assert len({type(stage).__name__ for stage in stages}) == 8
    for module in ("rewrites", "captions"):
        asked = {"rewrites": "load_generator", "captions": "load_captioner"}[module]
        monkeypatch.delattr(f"tasks.stages.{module}.{asked}")
    monkeypatch.delattr("tasks.stages.query_features.load_encoder")  # same texts, same features

    def refuse(engine: TransformersSettings) -> None:
        raise EngineUnavailable("it is away")

    monkeypatch.setattr(TransformersSettings, "require_host", refuse)
    require_hosts_of_missing(plan.rankings)

    @flow
    def making() -> None:
        run_stage(next(filter(reads_replies, stages)), RunLog())

    with pytest.raises(WorkToDo):
        run_unrecorded(making, {})
    for stage in stages:
        made = fill(stage)
        assert (made > 0) == reads_replies(stage), stage.title
        coverage = stage.table().completeness(stage.planned_keys())
        assert coverage.ok == coverage.planned > 0, stage.title
    scored = [(stage, score_ranking(stage)) for stage in plan.rankings]
    for stage, scores in scored:
        recorded = {name: cell["value"] for name, cell in before[stage.method].items()}
        assert recorded == dict(scores.metrics)
    record_scores(scored)
    assert len(pl.concat([s.table().read(["status"]) for s in plan.rankings])) == 7 * 4
    assert sum(fill(stage) for stage in stages) == 0


@pytest.mark.parametrize("root", ["local"], indirect=True)
def test_what_an_earlier_version_took_for_answers_is_seen_in_its_raw_replies(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(root, tmp_path)
    stage = next(s for s in in_order(plan.rankings) if getattr(s, "step", "") == "objects")
    assert isinstance(stage, RewriteStage)
    earlier = open_table(
        Location(root), "rewrites", {**stage.spec, "producer": "cirflow/rewrites/1"}
    )
    (part,) = earlier.parts()
    Path(root, part.path).unlink()
    raws = ["I'm sorry, but I cannot help with that.", "", "No new objects are added.", "a hat."]
    inputs = {key: each for key, each in stage.requests().items() if key in stage.planned()}
    keys = sorted(inputs)
    rows = earlier.rows(
        request_key=keys,
        caption=[inputs[key].content for key in keys],
        text=[inputs[key].text for key in keys],
        answer=raws,
        raw=raws,
        finish_reason=["stop"] * 4,
        attempts=[1] * 4,
    )
    earlier.publish(Shard.of(keys), rows)
    monkeypatch.delattr("tasks.stages.rewrites.load_generator")
    for each in in_order([stage.captions]):
        fill(each)
    assert fill(stage) == 4
    read = stage.table().read(["answer", "status", "reason", "raw"], keys)
    assert read["answer"].to_list() == [None, None, "none", "a hat"]
    assert read["status"].to_list() == ["rejected", "rejected", "ok", "ok"]
    assert [reason.partition(":")[0] for reason in read["reason"]] == [
        "refusal",
        EMPTY_ANSWER,
        "",
        "",
    ]
    assert read["raw"].to_list() == raws
