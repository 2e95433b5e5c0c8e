"""With every kind of bad server an evaluation has the healthy server's scores, or refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from embedded_world.benchmarks import WorldSize, write_world
from tests.fakes.bad_servers import HOPELESS, SPOILT, Answer, healthy
from tests.fakes.drawn import small_settings
from tests.fakes.filled_tables import fill
from tests.fakes.openai_server import MODEL, FakeOpenAIServer, Reply

if TYPE_CHECKING:
    from tasks.settings import Profile

METHODS = ("cirevl", "cvsi")
SIZE = WorldSize(subsets=1, circo_queries=8, fashion_queries=1, distractors=8)


def profile_for(root: Path, server: FakeOpenAIServer) -> Profile:
    """Small models, and the server as text generator."""
    from flows.profiles import resolve_profile

    return resolve_profile(
        "tiny",
        {
            **small_settings(root, captions=2, shard=64),
            "generator.engine": "openai",
            "generator.model": MODEL,
            "generator.base_url": server.base_url,
            "generator.transport_retries": 0,
            "generator.timeout": 30.0,
        },
    )


def evaluate(profile: Profile, circo: Path) -> Mapping[str, Mapping[str, float]]:
    """Metrics by method, from the stages of an evaluation as a run fills them.

    Raises:
        EngineUnavailable: the run stops.
        IncompleteTable: too many rows are not ok.
    """
    from storage.tables.table import require_complete
    from tasks.planner import plan_evaluation
    from tasks.query_sets import BenchmarkRef
    from tasks.scoring.scores import score_ranking
    from tasks.stages.stage import in_order

    ref = BenchmarkRef(name="circo", root=str(circo), split="val")
    rankings = plan_evaluation(profile, ref, METHODS).rankings
    for stage in in_order(rankings):
        fill(stage)
        require_complete(stage.table(), stage.planned_keys(), profile.allow_gaps)
    return {stage.method: score_ranking(stage).metrics for stage in rankings}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Any]:
    """A benchmark, a root with everything but a text generator's answers, and the right scores."""
    from storage.collections.collection import ingest
    from storage.locations.location import Location
    from tasks.query_sets import BenchmarkRef, image_folder

    out = tmp_path_factory.mktemp("bad-servers")
    circo = write_world(out / "world", SIZE, seed=3)["circo"]
    ref = BenchmarkRef(name="circo", root=str(circo), split="val")
    with FakeOpenAIServer(then=healthy) as server:
        profile = profile_for(out / "tables", server)
        ingest(Location(profile.root), image_folder(ref.load()), ref.collection_name)
        right = evaluate(profile, circo)
    for made in ("rewrites", "query_features", "rankings"):
        shutil.rmtree(out / "tables" / made)
    return circo, out / "tables", right


@pytest.fixture
def outcome(prepared: tuple[Path, Path, Any], tmp_path: Path) -> Callable[[Answer], Any]:
    """The scores with a server, or the error that refuses them."""
    circo, tables, _ = prepared

    def run(answer: Answer) -> Any:
        from models.protocols import EngineUnavailable
        from storage.tables.table import IncompleteTable

        shutil.copytree(tables, tmp_path / "tables")
        with FakeOpenAIServer(then=answer) as server:
            try:
                return evaluate(profile_for(tmp_path / "tables", server), circo)
            except (EngineUnavailable, IncompleteTable) as refusal:
                return refusal

    return run


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_answer_is_the_right_one_again(
    kind: str, prepared: Any, outcome: Callable[[Answer], Any], tmp_path: Path
) -> None:
    assert outcome(SPOILT[kind]) == prepared[2]
    rows = pl.read_parquet(f"{tmp_path}/tables/rewrites/*/part-*.parquet")
    assert rows["status"].unique().to_list() == ["ok"]
    assert rows["answered_by"].str.starts_with(MODEL).all()
    for column in ("raw", "answer"):
        assert not rows[column].str.contains(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]").any()


@pytest.mark.parametrize("kind", HOPELESS)
def test_no_score_is_made_from_what_is_no_answer(
    kind: str, outcome: Callable[[Answer], Any], tmp_path: Path
) -> None:
    refusal = outcome(HOPELESS[kind])
    assert isinstance(refusal, Exception), refusal
    assert not Path(tmp_path, "tables", "rankings").exists()
    for part in Path(tmp_path, "tables", "rewrites").glob("*/part-*.parquet"):
        edits = pl.read_parquet(part)
        assert (edits["answer"] == "none").all(), kind  # objects of a server that says "none"


def test_one_text_for_all_is_shown_with_three_prompts(outcome: Callable[[Answer], Any]) -> None:
    said = str(outcome(HOPELESS["one text for all"]))
    assert said.count("-> 'a plausible picture of some scene'") == 3
    assert said.count("Edited Description:'") == 3


def test_a_server_that_answers_some_keeps_what_it_answered(
    outcome: Callable[[Answer], Any], tmp_path: Path
) -> None:
    asked: list[int] = []

    def until_the_quota_ends(request: Mapping[str, Any]) -> Reply:
        asked.append(1)
        return healthy(request) if len(asked) <= 3 else HOPELESS["quota"](request)

    assert "has no ok row" in str(outcome(until_the_quota_ends))
    rows = pl.read_parquet(f"{tmp_path}/tables/rewrites/*/part-*.parquet")
    assert rows["status"].value_counts().sort("status").rows() == [
        ("engine_error", len(rows) - 3),
        ("ok", 3),
    ]
