"""What engines gain where shards follow one another without a gap, against shard by shard.

Captions: the embedded BLIP-2 captioner on drawn pictures, in shards as a partial backfill leaves
them; processor time, and the batches that ran. Requests: a server on loopback that takes a fixed
time for each; wall time (the server's time does not depend on load), and the slots that stood idle.
Rows of both ways are compared. Prefect's records are left out: `bench.orchestration` has them.

    python -m bench.streams
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from PIL import Image
from prefect.states import Completed, State

from bench.command_line import command_line
from bench.interleaved import interleaved
from bench.verdict import Verdict, exit_status, judge, report
from flows import shard_runners
from flows.profiles import resolve_profile
from flows.shard_runners import ShardRunner, one_by_one, streamed
from models.captioners.blip2 import Blip2Captioner
from storage.collections.collection import ingest
from storage.locations.location import Location
from storage.tables.plans import Plan, Shard, Shards
from storage.tables.turns import Turns
from tasks.profile_stages import caption_stage
from tasks.query_sets import OneQuery
from tasks.settings import Profile
from tasks.stages.captions import CaptionStage
from tasks.stages.rewrites import RewriteStage
from tasks.stages.run import run_shard
from tasks.stages.stage import Stage

SIZES: Final = (7, 21, 3, 16, 1, 30, 11, 5, 18, 9)
"""Images of each shard, after a partial backfill."""
BATCH: Final = 16
REQUESTS: Final = 200
SLOTS: Final = 16
SHARD: Final = 10
SECONDS: Final = 0.1
PAIRS: Final = 5
MODEL: Final = "bench"
DEMANDED_RATIO: Final = 1.3
"""How many times faster than shard by shard requests are answered at least."""


def without_record(stage: Stage, shard: dict[str, Any], return_state: bool) -> State[Any]:
    """The body of a shard's task, without Prefect."""
    made = run_shard.fn(stage, shard)
    return made if isinstance(made, State) else Completed(data=made)


def made_by(runner: ShardRunner, stage: Stage, sizes: Sequence[int]) -> pl.DataFrame:
    """The rows of a stage that a runner makes in shards of some sizes."""
    table, keys = stage.table(), sorted(stage.planned())
    ends = list(itertools.accumulate(sizes, initial=0))
    runs = [(keys[first:last], 0) for first, last in itertools.pairwise(ends)]
    before = table.plan(keys, len(keys)).before
    for _ in runner(stage, Turns(table, Plan(Shards(max(sizes), *runs), before))):
        pass
    return table.read().sort(table.schema.key)


def profile_at(root: str, **changes: object) -> Profile:
    """The embedded models, and tables at a root."""
    return resolve_profile("tiny", {"root": root, **changes})


def captions() -> Verdict:
    """Images of odd shards through the embedded captioner."""
    batches: list[int] = []
    draw = Blip2Captioner._caption_batch

    def counted(self: Blip2Captioner, batch: Any, *given: Any, **named: Any) -> list[list[str]]:
        batches.append(len(batch))
        return draw(self, batch, *given, **named)

    Blip2Captioner._caption_batch = counted  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        draw_pictures(Path(folder, "pictures", "drawn"), sum(SIZES))

        def run(runner: ShardRunner) -> tuple[pl.DataFrame, list[int]]:
            with tempfile.TemporaryDirectory(dir=folder) as root:
                ingest(Location(root), Path(folder, "pictures"), "drawn")
                stage = caption_stage(
                    profile_at(
                        root, **{"cvsi.captions_per_image": 3, "captioner.batch_size": BATCH}
                    ),
                    "drawn",
                )
                assert isinstance(stage, CaptionStage)
                batches.clear()
                return made_by(runner, stage, SIZES), list(batches)

        run(one_by_one)  # the model is loaded
        timing = interleaved(lambda: run(one_by_one), lambda: run(streamed))
    Blip2Captioner._caption_batch = draw  # type: ignore[method-assign]
    (expected, apart), (got, together) = timing.expected, timing.got
    ratio = statistics.median(timing.ratios)
    equal = got.equals(expected)
    return report(
        "streams_captions",
        f"{sum(SIZES)} images in {len(SIZES)} odd shards: {len(together)} batches of "
        f"{statistics.mean(together):.1f} of {BATCH}, shard by shard {len(apart)} of "
        f"{statistics.mean(apart):.1f}; {ratio:.2f}x its speed on a CPU; rows equal: {equal}",
        "ok" if equal and len(together) == -(-sum(SIZES) // BATCH) else "MISSED",
        {
            "batches": together,
            "batches_shard_by_shard": apart,
            "ratios": timing.ratios,
            "baseline_seconds": statistics.median(timing.baseline_seconds),
            "seconds": statistics.median(timing.seconds),
            "rows_equal": equal,
        },
    )


def draw_pictures(folder: Path, count: int) -> None:
    """Pictures of noise, all different."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 256, (96, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}.png")


class Server:
    """Answers each chat request after a fixed time, and adds up the seconds of its requests."""

    def __init__(self) -> None:
        self.busy = 0.0
        self._lock = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[str]:
        """Listen on loopback; yields the address."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.reply({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                begun = time.monotonic()
                time.sleep(SECONDS)
                with server._lock:
                    server.busy += time.monotonic() - begun
                text = f"a picture, {zlib.crc32(asked['messages'][0]['content'].encode())}"
                message = {"role": "assistant", "content": text}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                self.reply({"id": "1", "model": MODEL, "choices": [choice]})

            def reply(self, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *given: Any) -> None:
                """Nothing is logged."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
            thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
            thread.start()
            yield f"http://127.0.0.1:{listening.server_port}/v1"
            listening.shutdown()
            thread.join()


def edits(root: str, address: str) -> RewriteStage:
    """Edits of the captions of one picture, one request each."""
    chosen = {"engine": "openai", "model": MODEL, "base_url": address, "concurrency": SLOTS}
    settings = {f"generator.{name}": value for name, value in chosen.items()}
    profile = profile_at(root, **{"cvsi.captions_per_image": REQUESTS}, **settings)
    query = OneQuery(image_id="a" * 64, text="make it blue")
    captioned = caption_stage(profile, "drawn")
    texts = [f"a picture of kind {number}" for number in range(REQUESTS)]
    captioned.table().publish(
        Shard.of([query.image_id]),
        captioned.table().rows(
            image_id=[query.image_id], captions=[texts], n=[REQUESTS], raw=[texts]
        ),
    )
    return RewriteStage(
        root=root,
        shard_size=SHARD,
        step="edit",
        queries=query,
        captions=captioned,
        content="per_caption",
        prompt="edit",
        generator=profile.generator,
    )


def requests() -> Verdict:
    """Requests of many small shards to a server with a fixed time for each."""
    server = Server()

    def run(runner: ShardRunner) -> tuple[pl.DataFrame, float, float]:
        with tempfile.TemporaryDirectory() as root:
            stage, server.busy = edits(root, address), 0.0
            begun = time.monotonic()
            rows = made_by(runner, stage, [SHARD] * (REQUESTS // SHARD))
            seconds = time.monotonic() - begun
        return rows, seconds, 1.0 - server.busy / (SLOTS * seconds)

    with server.running() as address:
        run(one_by_one)
        pairs = [(run(one_by_one), run(streamed)) for _ in range(PAIRS)]
    before, after = (statistics.median(pair[way][1] for pair in pairs) for way in (0, 1))
    idle_before, idle = (statistics.median(pair[way][2] for pair in pairs) for way in (0, 1))
    equal = all(one[0].equals(other[0]) for one, other in pairs)
    ratios = [one[1] / other[1] for one, other in pairs]
    return report(
        "streams_requests",
        f"{REQUESTS} requests of {SECONDS} s, {SLOTS} at a time, in shards of {SHARD}: "
        f"{after:.2f} s with {100 * idle:.0f} % of the slots idle, shard by shard {before:.2f} s "
        f"with {100 * idle_before:.0f} %: {statistics.median(ratios):.2f}x its speed (demanded "
        f"{DEMANDED_RATIO}x), {SECONDS * REQUESTS / SLOTS:.2f} s at least; rows equal: {equal}",
        judge(ratios, at_least=DEMANDED_RATIO) if equal else "MISSED",
        {
            "seconds": after,
            "seconds_shard_by_shard": before,
            "idle": idle,
            "idle_shard_by_shard": idle_before,
            "ratios": ratios,
            "rows_equal": equal,
        },
    )


if __name__ == "__main__":
    command_line(__doc__).parse_args()
    shard_runners.run_shard = without_record  # type: ignore[assignment]
    sys.exit(exit_status([captions(), requests()]))
