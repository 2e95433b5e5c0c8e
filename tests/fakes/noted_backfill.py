"""The flow `backfill-captions` as it is deployed, in a process that notes which shards it makes.

A deployment with the entrypoint ``tests.fakes.noted_backfill.backfill_captions`` appends to
``$CIRFLOW_NOTES/FLOW_RUN_ID.jsonl`` whenever it is about to caption a shard. `CIRFLOW_NOTES` is a
folder of the worker's own, so that notes say who did what.
"""

from __future__ import annotations

import os
from pathlib import Path

from flows.backfill_captions import backfill_captions
from tasks.stages.captions import CaptionStage
from tests.fakes.caption_backfill import note_shards

__all__ = ["backfill_captions"]

_folder = Path(os.environ["CIRFLOW_NOTES"])
_folder.mkdir(parents=True, exist_ok=True)
note_shards(str(_folder / f"{os.environ['PREFECT__FLOW_RUN_ID']}.jsonl"), CaptionStage)
