"""A finished evaluation that is run again costs a constant for each stage.

It loads no model, and where no Prefect server is configured it starts none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from embedded_world.benchmarks import WorldSize, write_world
from tests.fakes.drawn import small_settings

pytestmark = [pytest.mark.prefect, pytest.mark.slow]

METHODS = "image-only,lincir,cirevl,ldre,cvsi,instructcir,cvsi-instructcir"
SIZE = WorldSize(subsets=6, circo_queries=5, fashion_queries=3, distractors=20)


@pytest.fixture(scope="module")
def again(
    prefect_api: None, tmp_path_factory: pytest.TempPathFactory, repository: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a finished evaluation that was run again reported, and what it cost."""
    from prefect.settings import PREFECT_API_URL

    out = tmp_path_factory.mktemp("finished")
    world = write_world(out / "world", SIZE, seed=43)
    given = {
        "benchmark": "circo",
        "folder": world["circo"],
        "methods": METHODS,
        "out": out / "report",
        **small_settings(out / "tables", captions=2, shard=256),
    }
    own = {name: value for name, value in os.environ.items() if name != "PREFECT_API_URL"}
    words = ["run", "score-benchmark", "--json", *(f"--set={k}={v}" for k, v in given.items())]

    def run(module: str, api: str | None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", module, *words],
            cwd=repository,
            env=own | ({"PREFECT_API_URL": api} if api else {}),
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, done.stderr
        return done

    api = PREFECT_API_URL.value()
    run("deployments.cli", api)
    # Stages that share a table change its parts one after the other: this run notes that none lacks
    # a row.
    run("deployments.cli", api)
    third = run("tests.fakes.counted_run", None)
    return json.loads(third.stdout), json.loads(third.stderr.splitlines()[-1])


def test_nothing_is_made(again: tuple[dict[str, Any], dict[str, Any]]) -> None:
    report, _ = again
    stages = report["stages"]
    assert len(stages) > 20
    assert [stage["title"] for stage in stages if stage["made"] or stage["failed"]] == []


def test_each_identity_is_computed_once(again: tuple[dict[str, Any], dict[str, Any]]) -> None:
    report, cost = again
    assert len(cost["identities"]) == len(report["stages"])
    assert set(cost["identities"].values()) == {1}


def test_a_stage_costs_three_listings_and_three_reads(
    again: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    """Several stages may share a table: references and gallery are two sets of images in one.

    A ranking also asks each feature of its gallery whether images lack it.
    """
    report, cost = again
    stages = Counter("/".join(stage["where"].split("/")[-2:]) for stage in report["stages"])
    for what, most in (("listings", 3), ("reads", 3)):
        by_table = {folder: cost[what].get(folder, 0) for folder in stages}
        assert sum(by_table.values()) <= most * len(report["stages"]), by_table


def test_no_model_library_is_imported(again: tuple[dict[str, Any], dict[str, Any]]) -> None:
    assert again[1]["heavy"] == []
