"""Flows that run again: nothing is made twice, what failed or was lost is made anew."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from models.protocols import Captioner, CaptionReply
from storage.collections.collection import ingest
from storage.locations.location import Location, NoRoom
from storage.tables.table import IncompleteTable, Table
from tasks.engines import load_captioner
from tasks.profile_stages import caption_stage
from tasks.stages import captions as captions_module
from tasks.stages.captions import CaptionStage
from tasks.stages.stage import Tick
from tests.fakes.drawn import draw_folder, small_profile, small_settings

pytestmark = pytest.mark.prefect

IMAGES = 8
SHARD = 2
Rows = Callable[[CaptionStage, Sequence[str], Tick], pa.Table]
States = Callable[[str], dict[str, str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Tables with a collection `drawn` of eight pictures in them."""
    draw_folder(tmp_path / "pictures", IMAGES, seed=31)
    ingest(Location(str(tmp_path / "tables")), tmp_path / "pictures", "drawn")
    return tmp_path / "tables"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The members of every shard whose captions were asked for, in order."""
    asked: list[tuple[str, ...]] = []
    rows = CaptionStage.rows

    def counting(self: CaptionStage, members: Sequence[str], tick: Tick) -> pa.Table:
        asked.append(tuple(members))
        return rows(self, members, tick)

    monkeypatch.setattr(CaptionStage, "rows", counting)
    return asked


def backfill(root: Path, **options: Any) -> dict[str, Any]:
    """Run the flow; returns its only stage's report."""
    from flows.backfill_captions import backfill_captions

    gaps = {"allow_gaps": options.pop("allow_gaps", 0.0)}
    settings = small_settings(root, captions=2, shard=SHARD) | gaps
    return backfill_captions("drawn", settings=settings, **options)["stages"][0]


def stage_of(root: Path) -> CaptionStage:
    return caption_stage(small_profile(root, captions=2, shard=SHARD), "drawn")


def table_of(root: Path) -> Table:
    return stage_of(root).table()


def stamps(table: Table) -> dict[str, str]:
    return {entry.path: entry.stamp for entry in table.parts()}


def break_once(monkeypatch: pytest.MonkeyPatch, victim: str, error: Exception, times: int) -> None:
    """Let the shard of one image raise, some times."""
    rows: Rows = CaptionStage.rows
    left = times

    def raising(self: CaptionStage, members: Sequence[str], tick: Tick) -> pa.Table:
        nonlocal left
        made = rows(self, members, tick)
        if victim in members and left:
            left -= 1
            raise error
        return made

    monkeypatch.setattr(CaptionStage, "rows", raising)


def test_a_second_run_makes_nothing_and_shows_as_cached(
    root: Path, calls: list[tuple[str, ...]], task_states: States
) -> None:
    first = backfill(root)
    assert (first["made"], first["reused"], first["failed"]) == (IMAGES, 0, 0)
    assert sorted(key for members in calls for key in members) == stage_of(root).planned()
    table = table_of(root)
    before = stamps(table)
    assert len(calls) == len(before) == IMAGES / SHARD
    states = task_states("captions of drawn")
    shards = {name for name in states if name.startswith("captions of drawn ")}
    assert {states[name] for name in shards} == {"Completed"}
    assert len(shards) == IMAGES / SHARD

    second = backfill(root)
    assert (second["made"], second["reused"]) == (0, IMAGES)
    assert len(calls) == IMAGES / SHARD
    assert stamps(table) == before
    assert task_states("captions of drawn") == {"plan captions of drawn": "Cached"}


def test_a_second_process_makes_nothing_either(
    root: Path, calls: list[tuple[str, ...]], task_states: States, repository: Path
) -> None:
    from prefect.settings import PREFECT_API_URL, PREFECT_LOCAL_STORAGE_PATH

    backfill(root)
    before = stamps(table_of(root))
    given = {"collection": "drawn", **small_settings(root, captions=2, shard=SHARD)}
    done = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "run", "backfill-captions", "--json"]
        + [f"--set={key}={value}" for key, value in given.items()],
        cwd=repository,
        env=os.environ
        | {
            "PREFECT_API_URL": PREFECT_API_URL.value() or "",
            "PREFECT_LOCAL_STORAGE_PATH": str(PREFECT_LOCAL_STORAGE_PATH.value()),
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["stages"][0]
    assert (report["made"], report["reused"]) == (0, IMAGES)
    assert stamps(table_of(root)) == before
    assert task_states("captions of drawn") == {"plan captions of drawn": "Cached"}


def test_a_lost_part_is_made_again_and_prefect_keeps_no_result(
    root: Path, calls: list[tuple[str, ...]], prefect_results: Path
) -> None:
    backfill(root)
    backfill(root)
    assert not prefect_results.exists() or not list(prefect_results.iterdir())
    table = table_of(root)
    whole = table.read()
    lost = table.parts()[1].path
    members = pl.read_parquet(root / lost)["image_id"].to_list()
    (root / lost).unlink()
    calls.clear()
    report = backfill(root)
    assert (report["made"], report["reused"]) == (SHARD, IMAGES - SHARD)
    assert calls == [tuple(members)]
    assert table.read().equals(whole)


def test_a_shard_shows_as_cached_only_while_its_part_exists(
    root: Path, calls: list[tuple[str, ...]], prefect_results: Path
) -> None:
    """A racer that lost finds the part there."""
    from prefect import flow

    from tasks.stages.run import run_shard

    stage = stage_of(root)
    planned = stage.table().plan(stage.planned(), SHARD).shards[0]
    shard = {"key": planned.key, "members": list(planned.members), "attempt": planned.attempt}

    @flow
    def make() -> tuple[str, dict[str, Any]]:
        state = run_shard(stage, shard, return_state=True)
        return state.name, state.result()

    assert make()[1]["published"]
    assert not make()[1]["published"]  # the part is there
    assert make()[0] == "Cached"
    (root / stage.table().parts()[0].path).unlink()
    name, result = make()
    assert name == "Completed"
    assert result["published"]
    assert len(calls) == 2  # once for each time that the part was not there


def test_a_shard_that_raises_stops_no_other_and_is_made_next_time(
    root: Path, calls: list[tuple[str, ...]], prefect_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.running import StageFailed

    keys = stage_of(root).planned()
    with monkeypatch.context() as patch:
        break_once(patch, keys[3], ValueError("no such colour"), times=9)
        with pytest.raises(StageFailed, match=r"1 of 4 shards failed.*no such colour"):
            backfill(root)
    assert [members for members in calls if keys[3] in members] == [
        (keys[2], keys[3])
    ]  # tried once
    assert len(calls) == IMAGES / SHARD
    assert set(table_of(root).read()["image_id"]) == set(keys) - {keys[2], keys[3]}
    calls.clear()
    report = backfill(root)
    assert (report["made"], report["reused"]) == (SHARD, IMAGES - SHARD)
    assert calls == [(keys[2], keys[3])]


def test_a_full_disk_ends_a_stage(
    root: Path, calls: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of captions would be made that nothing can take."""
    from flows.backfill_captions import backfill_captions
    from flows.running import StageFailed

    create = Location.create
    settings = small_settings(root, captions=2, shard=1) | {"captioner.batch_size": 1}

    refused: list[str] = []

    def full(self: Location, path: str, data: bytes) -> bool:
        if path.endswith(".parquet"):
            refused.append(path)
            if len(refused) == 1:
                raise ValueError("one bad shard, which ends nothing")
            raise NoRoom(f"{self.root} takes no more files: make room there")
        return create(self, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Location, "create", full)
        with pytest.raises(StageFailed, match="takes no more files: make room there"):
            backfill_captions("drawn", settings=settings)
    assert len(calls) < IMAGES
    assert backfill(root)["made"] == IMAGES


def test_a_lost_connection_is_tried_again_by_itself(
    root: Path,
    calls: list[tuple[str, ...]],
    task_states: States,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = stage_of(root).planned()
    break_once(monkeypatch, keys[0], ConnectionResetError("gone"), times=1)
    report = backfill(root)
    assert (report["made"], report["broken"]) == (IMAGES, [])
    assert [members for members in calls if keys[0] in members] == [(keys[0], keys[1])] * 2
    assert len(calls) == IMAGES / SHARD + 1
    assert set(task_states("captions of drawn").values()) == {"Completed"}


class OneRefused:
    """The real captioner, but one image gets no caption."""

    def __init__(self, captioner: Captioner, victim: str) -> None:
        self._captioner = captioner
        self._victim = victim

    def caption(self, images: Any, sampling: Any) -> Iterator[CaptionReply]:
        for reply in self._captioner.caption(images, sampling):
            refused = CaptionReply(reply.key, (), "engine_error", "too dark to see")
            yield refused if reply.key == self._victim else reply


def test_failed_rows_are_kept_counted_refused_and_retried_when_asked(
    root: Path, calls: list[tuple[str, ...]], prefect_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.requests.backfill_captions import Selector

    victim = stage_of(root).planned()[5]
    with monkeypatch.context() as patch:
        patch.setattr(
            captions_module, "load_captioner", lambda s: OneRefused(load_captioner(s), victim)
        )
        with pytest.raises(
            IncompleteTable, match=f"1 of 8 keys .*{victim}.*too dark.*retry_failed"
        ):
            backfill(root)
    assert len(calls) == IMAGES / SHARD
    assert table_of(root).rows_by_status() == {"ok": IMAGES - 1, "engine_error": 1}

    again = backfill(root, allow_gaps=0.2)  # a failed row is present: nothing is made
    assert (again["made"], again["reused"], again["failed"]) == (0, IMAGES, 1)
    with pytest.raises(IncompleteTable):
        backfill(root)
    assert len(calls) == IMAGES / SHARD

    mended = backfill(root, selector=Selector(which="failed"))
    assert (mended["made"], mended["reused"], mended["failed"]) == (1, IMAGES - 1, 0)
    assert calls[-1] == (victim,)
    assert backfill(root)["failed"] == 0
    assert len(calls) == IMAGES / SHARD + 1
    row = table_of(root).read(keys=[victim]).to_dicts()[0]
    assert (row["status"], row["n"]) == ("ok", 2)


def test_features_of_captions_that_came_later_are_made_when_failed_rows_are_retried(
    root: Path, prefect_results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.embed_gallery import embed_gallery
    from tasks.planner import gallery_stages

    settings = small_settings(root, captions=2, shard=SHARD) | {"allow_gaps": 0.2}
    profile = small_profile(root, captions=2, shard=SHARD)
    stages = gallery_stages(profile, "drawn", "cvsi").values()
    (features,) = (each for each in stages if each.table_name == "caption_features")

    def embedded(**given: Any) -> dict[str, int]:
        embed_gallery("drawn", settings=settings, **given)
        return features.table().rows_by_status()

    victim = stage_of(root).planned()[5]
    with monkeypatch.context() as patch:
        patch.setattr(
            captions_module, "load_captioner", lambda s: OneRefused(load_captioner(s), victim)
        )
        assert embedded() == {"ok": IMAGES - 1, "no_captions": 1}
    assert embedded(retry_failed=True) == {"ok": IMAGES}
    assert table_of(root).rows_by_status() == {"ok": IMAGES}
