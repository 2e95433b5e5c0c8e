"""What a run ran on: card, driver, versions, date."""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
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


def _card(device: str) -> tuple[str, str]:
    """Name and driver, as the driver's own tool says them."""
    _, _, number = device.partition(":")
    asked = ("nvidia-smi", f"--id={number or 0}", "--query-gpu=name,driver_version")
    try:
        said = subprocess.run(
            [*asked, "--format=csv,noheader"], capture_output=True, text=True, timeout=30
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    name, _, driver = said.strip().partition(", ")
    return name or "unknown", driver


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
