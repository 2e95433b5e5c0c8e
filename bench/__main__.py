"""Run every benchmark, each in a process of its own: `python -m bench`, or `make bench`."""

import subprocess
import sys

from bench.command_line import command_line
from bench.verdict import NOT_JUDGED
from models.devices import gpu_is_available

JUDGED = (
    "tables",
    "million",
    "scoring",
    "bootstrap",
    "search",
    "mapped_search",
    "served_gallery",
    "caption_encoding",
    "image_embedding",
    "ingest",
    "picture_reading",
    "reformulation_step",
    "orchestration",
    "streams",
)

command_line(__doc__).parse_args()
statuses = {
    name: subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode
    for name in JUDGED
}
if gpu_is_available():
    print("this machine has a GPU: `python -m bench.gpu --minutes 8` measures it")
if unjudged := [name for name, status in statuses.items() if status == NOT_JUDGED]:
    print(f"not judged, since repeated measurements differ: {', '.join(unjudged)}")
if missed := [name for name, status in statuses.items() if status not in (0, NOT_JUDGED)]:
    raise SystemExit(f"missed: {', '.join(missed)}")
