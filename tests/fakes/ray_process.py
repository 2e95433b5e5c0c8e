"""What a test lets every worker process of Ray do first: note what it loads and makes, or die."""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

LOG = "CIRFLOW_TEST_RAY_LOG"
"""Environment variable with the log's path."""

DEATH = "CIRFLOW_TEST_RAY_DEATH"
"""If set, a path; the process that makes a file there, at its first shard, is killed."""


def note() -> None:
    """Append a line for each captioner that is loaded, and for each shard that is begun."""
    from models.captioners.blip2 import Blip2Settings
    from tasks.stages.captions import CaptionStage
    from tests.fakes.caption_backfill import note_shards

    log = os.environ[LOG]
    load = Blip2Settings.load

    @functools.wraps(load)
    def noting(self: Blip2Settings) -> Any:
        with open(log, "a") as file:
            file.write(json.dumps({"pid": os.getpid(), "loads": self.model}) + "\n")
        return load(self)

    Blip2Settings.load = noting  # type: ignore[method-assign]
    if DEATH in os.environ:
        _die_once(Path(os.environ[DEATH]))
    note_shards(log, CaptionStage)


def _die_once(mark: Path) -> None:
    from tasks.stages.captions import CaptionStage
    from tasks.stages.stage import Tick

    rows = CaptionStage.rows

    def dying(self: CaptionStage, members: Sequence[str], tick: Tick) -> pa.Table:
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            return rows(self, members, tick)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("unreachable")

    CaptionStage.rows = dying  # type: ignore[method-assign]
