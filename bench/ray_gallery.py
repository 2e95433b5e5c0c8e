"""Image features of a gallery by two workers of Ray against one process.

Both fill a root of their own with the small CLIP that ships, from JPEG files of 64 pixels, through
`cirflow run embed-gallery`. Rates are of the whole command, start-up included, by the clock and by
the processor time of all its processes (sampled on Linux: each may lose a quarter of a second), and
of the stage alone. Rows must be equal. A worker of Ray has one core; the one process uses all.

    python -m bench.ray_gallery            # 50,000 pictures
    python -m bench.ray_gallery 2000
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from bench.command_line import command_line, whole_number
from flows.profiles import resolve_profile
from storage.collections.collection import ingest
from storage.locations.location import Location
from tasks.planner import gallery_stages

PICTURES: Final = 50_000
WORKERS: Final = 2
SIDE: Final = 64
MARK: Final = "CIRFLOW_BENCH_RUN"
"""Variable by which processes of a command are known, also those of Ray that leave its session."""
SAMPLED: Final = 0.25


def draw_pictures(folder: Path, count: int) -> None:
    """Small JPEG files, all different."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:06d}.jpg", quality=80)


def processor_seconds(mark: str, ended: threading.Event) -> float:
    """Of all processes that carry a mark, from now until the end."""
    ticks: dict[str, int] = {}
    while not ended.wait(SAMPLED):
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={mark}\0".encode() in (process / "environ").read_bytes():
                    # Behind the name in brackets: user and system time are fields 14 and 15.
                    fields = (process / "stat").read_text().rpartition(")")[2].split()
                    ticks[process.name] = int(fields[11]) + int(fields[12])
            except OSError:  # it ended, or is another user's
                continue
    return sum(ticks.values()) / os.sysconf("SC_CLK_TCK")


def embedded(root: Path, workers: int) -> tuple[float, float, str]:
    """Seconds of the command by the clock and of processors, and what it printed."""
    command = [sys.executable, "-m", "deployments.cli", "run", "embed-gallery"]
    given = ("collection=pictures", 'methods=["image-only"]', f"root={root}")
    chosen = (*given, f"ray.workers={workers}")
    mark, ended = uuid.uuid4().hex, threading.Event()
    with ThreadPoolExecutor(1) as watcher:
        worked = watcher.submit(processor_seconds, mark, ended)
        began = time.perf_counter()
        try:
            done = subprocess.run(
                [*command, *(word for each in chosen for word in ("--set", each))],
                check=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=root.parent,
                env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), MARK: mark},
            )
            seconds = time.perf_counter() - began
        finally:
            ended.set()
        return seconds, worked.result(), done.stdout


def main(count: int) -> None:
    """Measure both, one after the other, and compare their rows."""
    with tempfile.TemporaryDirectory() as work:
        source = Path(work) / "source"
        draw_pictures(source, count)
        tables = []
        for name, workers in (("one process", 0), (f"{WORKERS} workers of Ray", WORKERS)):
            root = Path(work) / f"root-{workers}"
            ingest(Location(str(root)), source, "pictures")
            seconds, worked, said = embedded(root, workers)
            print(
                f"{name}: {count / seconds:,.0f} images/s, {seconds:.0f} s; "
                f"{count / worked:,.0f} images a processor second, {worked:.0f} s",
                flush=True,
            )
            alone = re.findall(r"^image features of pictures .* ([\d.]+)$", said, re.MULTILINE)
            print(f"  the stage alone: {count / float(alone[0]):,.0f} images/s")
            profile = resolve_profile("tiny", {"root": str(root)})
            (stage,) = gallery_stages(profile, "pictures", "image-only").values()
            tables.append(stage.table().read())
    print(f"rows equal: {tables[0].equals(tables[1])}")


if __name__ == "__main__":
    parser = command_line(__doc__)
    parser.add_argument(
        "pictures", nargs="?", type=whole_number, default=PICTURES, help="of the gallery"
    )
    main(parser.parse_args().pictures)
