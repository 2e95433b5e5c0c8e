"""The flow `backfill-captions` as it is deployed, in a process that notes which shards it makes.

A deployment with the entrypoint ``tests.fakes.noted_backfill.backfill_captions`` appends to
``$CIRFLOW_NOTES/FLOW_RUN_ID.jsonl`` whenever it is about to caption a shard. `CIRFLOW_NOTES` is a
folder of the worker's own, so that notes say who did what.

Captions take as long as a large captioner's, at no cost of a core, so that a run has not ended
before it is disturbed. Where another worker takes part (`CIRFLOW_PARTNER_NOTES` is its folder), a
run waits in its fourth shard until that one has begun: on a busy machine its start takes a minute.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from flows.backfill_captions import backfill_captions
from tasks.stages.captions import CaptionStage
from tasks.stages.stage import Tick
from tests.fakes.caption_backfill import note_shards

__all__ = ["backfill_captions"]

ALONE = 3
"""Shards that a run makes before another takes part."""
SHARD_SECONDS = 1.0
PATIENCE_SECONDS = 900.0

_folder = Path(os.environ["CIRFLOW_NOTES"])
_folder.mkdir(parents=True, exist_ok=True)
_notes = _folder / f"{os.environ['PREFECT__FLOW_RUN_ID']}.jsonl"
_partner = os.environ.get("CIRFLOW_PARTNER_NOTES", "")
_rows = CaptionStage.rows


def _slow_rows(self: CaptionStage, members: Sequence[str], tick: Tick) -> pa.Table:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while _partner and not any(file.stat().st_size for file in Path(_partner).glob("*.jsonl")):
        if len(_notes.read_text().splitlines()) <= ALONE:
            break
        if time.monotonic() > deadline:
            raise TimeoutError(f"no other run has begun: {_partner} is empty")
        time.sleep(0.1)
    time.sleep(SHARD_SECONDS)
    return _rows(self, members, tick)


CaptionStage.rows = _slow_rows  # type: ignore[method-assign]
note_shards(str(_notes), CaptionStage)
