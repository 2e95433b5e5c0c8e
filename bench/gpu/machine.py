"""What a run ran on: card, driver, versions, date."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("torch", "transformers", "open_clip_torch", "numpy")


def machine_facts(device: str, small: bool) -> dict[str, str]:
    """Facts for the head of the table. Torch is not imported: no memory of the card is taken."""
    on_gpu = device.startswith("cuda")
    card, driver = _card(device) if on_gpu else ("CPU (not a figure of a GPU)", "")
    return {
        "card": card,
        "driver": driver,
        "host": f"{_processor()}, {_cores()} cores",
        "python": platform.python_version(),
        **{name.removesuffix("_torch"): _version(name) for name in _PACKAGES},
        "dtype": "bf16" if on_gpu else "fp32",
        "shapes": "small (the figures say nothing)" if small else "",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


_NAME: Final = """
import sys, torch
found = torch.cuda.get_device_properties(int(sys.argv[1]))
print(f"{found.name}, {found.total_memory / 2**30:.0f} GiB")
"""


def _card(device: str) -> tuple[str, str]:
    """Name and memory of the card, and its driver.

    A torch in a process of its own names the card: the driver's tool numbers cards in another
    order, and knows nothing of those that CUDA_VISIBLE_DEVICES chooses.
    """
    _, _, number = device.partition(":")
    name = _said(sys.executable, "-c", _NAME, number or "0")
    drivers = _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return name or "unknown", drivers.partition("\n")[0]


def _said(*command: str) -> str:
    """What a command prints; nothing where it fails or cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout.strip()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _processor() -> str:
    try:
        said = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", said, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
