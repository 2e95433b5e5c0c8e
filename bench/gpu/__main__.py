"""What a GPU does with the project's heavy work, each against a bare form in the same run.

    python -m bench.gpu --minutes 8                    # every part on the first GPU
    python -m bench.gpu --parts limits,captions        # some of them
    python -m bench.gpu --device cpu --small           # tries the code on a machine without a GPU

It needs Python 3.11 or newer, PyTorch 2.11, transformers 5.17, open_clip, safetensors, Pillow,
pyarrow and numpy, and nothing is downloaded: weights, pictures and texts are random. Every part
runs in a process of its own. First come the limits of the card: matrix products in each precision,
and copies. Every line then has a rate, that of a bare PyTorch form of the same work in turns with
ours (`of bare`), the share of the limit that binds it (`of its limit`) and of the measured matrix
products (`MFU`). A part that does not fit in the time or the memory is a line that says so.

OUT/gpu.json holds all values and OUT/gpu.md the table; both are replaced after each line.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.gpu import child
from bench.gpu.machine import machine_facts
from bench.gpu.plan import PARTS, Part
from bench.gpu.results import Results
from bench.gpu.run import run

_OUT = Path("out/gpu")
_NEEDED = {
    "torch": "torch",
    "transformers": "transformers",
    "open_clip": "open_clip_torch",
    "safetensors": "safetensors",
    "PIL": "pillow",
    "pyarrow": "pyarrow",
    "numpy": "numpy",
}
"""Module -> package that brings it."""


def main(given: Sequence[str] | None = None) -> int:
    """Measure, or measure one part for the process that asked for it.

    Args:
        given: Command-line arguments; None takes the process's.

    Returns:
        Exit status: 1 where a part failed. A part that is left out is not a failure.
    """
    asked = _parser().parse_args(given)
    if asked.child:
        child.main(asked.child, asked.device, asked.small, asked.until)
        return 0
    parts = _chosen(asked.parts)
    if reason := _refused(asked.device, asked.small):
        raise SystemExit(reason)
    # A scheduler's SIGTERM leaves as Ctrl-C does: the part that runs is stopped too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    results = Results(machine_facts(asked.device, asked.small), asked.out)
    run(parts, results, asked.device, asked.small, asked.minutes)
    print(f"\n{results.as_markdown()}\n{asked.out / 'gpu.json'}, {asked.out / 'gpu.md'}")
    return int(any(getattr(line, "kind", "") == "failed" for line in results.lines))


def _parser() -> argparse.ArgumentParser:
    names = "\n".join(
        f"  {part.name:12} {part.what} (about {part.seconds:.0f} s)" for part in PARTS
    )
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description=__doc__,
        epilog=f"parts:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=_positive, default=8.0, help="for all parts together")
    parser.add_argument("--parts", default="", metavar="A,B", help="only these; the limits always")
    parser.add_argument("--out", type=Path, default=_OUT, help=f"folder of both files ({_OUT})")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (with --small)")
    parser.add_argument("--small", action="store_true", help="small shapes, for trying the code")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, default=0.0, help=argparse.SUPPRESS)
    return parser


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 24 * 60:
        raise argparse.ArgumentTypeError(
            f"minutes are a positive number and less than a day, as 8, not {text!r}"
        )
    return value


def _chosen(names: str) -> list[Part]:
    """Parts by name, in their order; limits first, since every ratio needs them."""
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    known = {part.name for part in PARTS}
    if strange := wanted - known:
        raise SystemExit(
            f"--parts: {', '.join(sorted(strange))} is unknown; there are "
            f"{', '.join(part.name for part in PARTS)}"
        )
    return [part for part in PARTS if not wanted or part.name in wanted | {"limits"}]


def _refused(device: str, small: bool) -> str:
    """Why nothing can run on a device, or an empty text."""
    absent = [name for module, name in _NEEDED.items() if not importlib.util.find_spec(module)]
    if absent:
        return (
            f"not installed: {', '.join(absent)}; `{sys.executable} -m pip install "
            f"{' '.join(absent)}` (or your environment's own way), then run this again"
        )
    if not (named := re.fullmatch(r"cpu|cuda(?::(\d+))?", device)):
        return f"--device is cuda, cuda:N or cpu, not {device!r}"
    if device == "cpu":
        return "" if small else "--device cpu takes days without --small; give both"
    import torch

    number, cards = int(named[1] or 0), torch.cuda.device_count()
    if not cards or not torch.cuda.is_available():
        return (
            "torch sees no GPU; --device cpu --small tries the code, and its figures say nothing "
            "of a GPU"
        )
    last = cards - 1
    return "" if number <= last else f"--device {device}: torch sees cuda:0 to cuda:{last} only"


if __name__ == "__main__":
    sys.exit(main())
