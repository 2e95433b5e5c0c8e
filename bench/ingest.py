"""Ingest of a folder against bare hashing and decoding of the same files.

Both read every file; the baseline hashes it and decodes it with Pillow, and keeps nothing.

python -m bench.ingest
"""

from __future__ import annotations

import hashlib
import io
import statistics
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from bench.command_line import command_line
from bench.interleaved import interleaved
from bench.verdict import Verdict, exit_status, judge, report
from storage.collections.collection import ingest
from storage.locations.location import Location

FILES: Final = 300
SIZE: Final = (500, 375)
ALLOWED_RATIO: Final = 1.5


def draw_files(folder: Path, count: int, seed: int = 0) -> int:
    """JPEG files of the size and detail of web photographs; returns their bytes."""
    random, total = np.random.default_rng(seed), 0
    for number in range(count):
        rough = random.integers(0, 256, (64, 85, 3), dtype=np.uint8)
        picture = Image.fromarray(rough).resize(SIZE, Image.Resampling.BICUBIC)
        file = folder / f"{number:05d}.jpg"
        picture.save(file, quality=90)
        total += file.stat().st_size
    return total


def main() -> Verdict:
    """Measure on one thread, and print the verdict."""
    with tempfile.TemporaryDirectory() as work:
        source = Path(work) / "source"
        source.mkdir()
        size = draw_files(source, FILES)

        def bare() -> int:
            seen = set()
            for file in sorted(source.iterdir()):
                data = file.read_bytes()
                seen.add(hashlib.sha256(data).hexdigest())
                Image.open(io.BytesIO(data)).convert("RGB")
            return len(seen)

        def ours() -> int:
            root = Location(f"{work}/{uuid.uuid4().hex}")
            return ingest(root, source, "bench", workers=1).images

        bare()
        ours()
        timing = interleaved(bare, ours)
    costs = [1 / each for each in timing.ratios]
    ratio = statistics.median(costs)
    return report(
        "ingest",
        f"ingest of {FILES} files of {size / FILES / 1e3:.0f} kB: {ratio:.2f}x hash-and-decode "
        f"(allowed {ALLOWED_RATIO}x)",
        judge(costs, at_most=ALLOWED_RATIO) if timing.got == timing.expected else "MISSED",
        {
            "ratio": ratio,
            "allowed": ALLOWED_RATIO,
            "ratios": costs,
            "baseline_seconds": statistics.median(timing.baseline_seconds),
            "seconds": statistics.median(timing.seconds),
            "files": FILES,
            "bytes": size,
        },
    )


if __name__ == "__main__":
    command_line(__doc__).parse_args()
    sys.exit(exit_status([main()]))
