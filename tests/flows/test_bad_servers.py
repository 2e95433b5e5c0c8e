"""Whole evaluations with a server that thinks aloud, and with one that refuses and is then mended.

`tests/tasks/test_bad_servers.py` shows every other kind on the same stages.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from embedded_world.benchmarks import WorldSize, write_world
from tests.fakes.bad_servers import HOPELESS, SPOILT, Answer, healthy
from tests.fakes.drawn import small_settings
from tests.fakes.openai_server import MODEL, FakeOpenAIServer

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

SIZE = WorldSize(subsets=1, circo_queries=8, fashion_queries=1, distractors=8)


def evaluate(folder: Path, root: Path, answer: Answer, **more: Any) -> Any:
    """The scores of a run whose text generator is a server."""
    from flows.score_benchmark import score_benchmark

    with FakeOpenAIServer(then=answer) as server:
        settings = {
            **small_settings(root, captions=2, shard=64),
            "generator.engine": "openai",
            "generator.model": MODEL,
            "generator.base_url": server.base_url,
            "generator.transport_retries": 0,
        }
        made = score_benchmark(
            "circo", str(folder), methods=("cvsi",), settings=settings, out=str(root / "o"), **more
        )
    return made["scores"]


def test_the_scores_are_right_or_there_are_none(tmp_path: Path, prefect_results: Path) -> None:
    from storage.tables.table import IncompleteTable

    folder = Path(write_world(tmp_path / "world", SIZE, seed=3)["circo"])
    with pytest.raises(IncompleteTable, match="rejected: refusal"):
        evaluate(folder, tmp_path / "a", HOPELESS["refusal 0"])
    assert not (tmp_path / "a" / "results").exists()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    shutil.rmtree(tmp_path / "b" / "rewrites")
    right = evaluate(folder, tmp_path / "a", healthy, retry_failed=True)
    assert right["circo-val"]["cvsi"]["map@10"] > 0
    assert evaluate(folder, tmp_path / "b", SPOILT["thinks without an opening tag"]) == right
