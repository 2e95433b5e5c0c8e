"""Captions and features on Ray: two worker processes fill the tables as one process does."""

from __future__ import annotations

import importlib.util
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.collections.collection import ingest
from storage.locations.location import Location
from storage.tables.table import Table, require_complete
from tasks.profile_stages import caption_stage
from tests.fakes import ray_process
from tests.fakes.drawn import draw_folder, small_profile, small_settings

IMAGES = 240
SHARD = 30
WORKERS = 2
States = Callable[[str], dict[str, str]]


def needs_ray() -> None:
    """Skip without the extra. Ray is not imported: it reads its settings when it is."""
    if importlib.util.find_spec("prefect_ray") is None:
        pytest.skip("extra ray")


def table_at(root: Path) -> tuple[Table, list[str]]:
    """The captions table at a root, and the keys that it should hold."""
    stage = caption_stage(small_profile(root, captions=2, shard=SHARD), "drawn")
    return stage.table(), stage.planned()


def backfill(root: Path, **options: Any) -> dict[str, Any]:
    """Run the flow; returns its only stage's report."""
    from flows.backfill_captions import backfill_captions

    settings = small_settings(root, captions=2, shard=SHARD) | {"allow_gaps": 0.0}
    return backfill_captions("drawn", settings=settings, **options)["stages"][0]


@pytest.fixture
def noted(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], list[dict[str, Any]]]:
    """What the worker processes of Ray did, in order."""
    from flows import ray_workers

    needs_ray()
    log = tmp_path / "log.jsonl"
    log.touch()
    monkeypatch.setenv(ray_process.LOG, str(log))
    monkeypatch.setenv("PYTHONPATH", str(repository))  # where the hook below lies
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 otherwise: slow on a busy machine
    connection = ray_workers._connection
    more = {
        "runtime_env": {"worker_process_setup_hook": "tests.fakes.ray_process.note"},
        "num_gpus": 1,  # declared, there is none
    }
    monkeypatch.setattr(ray_workers, "_connection", lambda chosen: connection(chosen) | more)
    return lambda: [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.prefect
def test_two_worker_processes_make_the_table_that_one_process_makes(
    tmp_path: Path,
    noted: Callable[[], list[dict[str, Any]]],
    task_states: States,
) -> None:
    from flows.requests.ray_workers import RayWorkers

    draw_folder(tmp_path / "pictures", IMAGES, seed=47)
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    for root in (alone, shared):
        ingest(Location(str(root)), tmp_path / "pictures", "drawn")
    backfill(alone)

    report = backfill(shared, ray=RayWorkers(workers=WORKERS, gpus=1 / WORKERS))
    assert (report["made"], report["failed"], report["broken"]) == (IMAGES, 0, [])
    table, keys = table_at(shared)
    assert require_complete(table, keys).ok == IMAGES
    assert table.read().equals(table_at(alone)[0].read())
    assert [e.path for e in table.parts()] == [e.path for e in table_at(alone)[0].parts()]

    lines = noted()
    shards = [line for line in lines if "members" in line]
    assert Counter(key for line in shards for key in line["members"]) == Counter(keys)
    workers = {line["pid"] for line in shards}
    assert len(workers) >= WORKERS
    assert os.getpid() not in workers
    assert Counter(line["pid"] for line in lines if "loads" in line) == Counter(workers)

    states = task_states("captions of drawn")
    assert len(states) == IMAGES / SHARD + 1  # and the plan
    assert set(states.values()) == {"Completed"}

    again = backfill(shared, ray=RayWorkers(workers=WORKERS))
    assert (again["made"], again["reused"]) == (0, IMAGES)
    assert noted() == lines  # nothing to make, no worker started


@pytest.mark.slow
@pytest.mark.prefect
def test_a_gallery_is_embedded_although_a_worker_dies(
    tmp_path: Path,
    noted: Callable[[], list[dict[str, Any]]],
    prefect_results: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another worker makes the lost shard, and all tables are those of one process."""
    from flows import ray_workers
    from flows.embed_gallery import embed_gallery
    from flows.requests.ray_workers import RayWorkers
    from tasks.planner import gallery_stages

    count, shard = 60, 15
    draw_folder(tmp_path / "pictures", count, seed=49)
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    for root in (alone, shared):
        ingest(Location(str(root)), tmp_path / "pictures", "drawn")

    def made(root: Path, workers: int) -> list[int]:
        settings = small_settings(root, captions=1, shard=shard)
        done = embed_gallery("drawn", ray=RayWorkers(workers=workers), settings=settings)
        return [stage["made"] for stage in done["stages"]]

    everything = made(alone, 0)
    assert set(everything) == {count}
    monkeypatch.setenv(ray_process.DEATH, str(tmp_path / "died"))
    assert made(shared, WORKERS) == everything
    assert (tmp_path / "died").exists()
    captioned = [line for line in noted() if "members" in line]
    assert os.getpid() not in {line["pid"] for line in captioned}
    begun = Counter(key for line in captioned for key in line["members"])
    assert sorted(begun.values()) == [1] * (count - shard) + [2] * shard

    first, second = (
        gallery_stages(small_profile(root, captions=1, shard=shard), "drawn", "cvsi")
        for root in (alone, shared)
    )
    for name, stage in second.items():
        assert stage.table().read().equals(first[name].table().read()), name

    monkeypatch.setattr(ray_workers, "on_ray", None)  # nothing to make: no cluster starts
    assert set(made(shared, WORKERS)) == {0}


def test_without_ray_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.requests.ray_workers import RayWorkers

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert RayWorkers().workers == 0  # nobody who does not ask for Ray needs it
    with pytest.raises(ValueError, match=r"pip install 'cirflow\[ray\]'"):
        RayWorkers(workers=1)


def test_ray_and_further_runs_exclude_each_other(tmp_path: Path) -> None:
    from flows.backfill_captions import backfill_captions
    from flows.requests.ray_workers import RayWorkers

    needs_ray()
    draw_folder(tmp_path / "pictures", 1)
    ingest(Location(str(tmp_path / "root")), tmp_path / "pictures", "drawn")
    with pytest.raises(ValueError, match="choose runs=1"):
        backfill_captions.fn(
            "drawn", runs=2, ray=RayWorkers(workers=1), settings=small_settings(tmp_path / "root")
        )
