"""Whoever only asks for forms, lists or methods does not wait for torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from deployments.commands.run import FLOWS

HEAVY = ("torch", "torchvision", "transformers", "open_clip", "lightning", "peft", "safetensors")
"""Seconds of processor time each, and of no use before a model is loaded."""


def heavy_after(repository: Path, *steps: str) -> list[list[str]]:
    """What of it a new process has imported after each of some steps."""
    code = "import json, sys\nfrom deployments.cli import main\n" + "\n".join(
        f"{step}\nprint('HEAVY', json.dumps([m for m in {HEAVY} if m in sys.modules]))"
        for step in steps
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository,
        env={**os.environ, "PREFECT_API_URL": "http://127.0.0.1:1/api"},
        capture_output=True,
        text=True,
        check=True,
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("HEAVY ")]
    return [json.loads(line.removeprefix("HEAVY ")) for line in told]


def test_reading_commands_and_flows_are_imported_without_models(repository: Path) -> None:
    modules = dict.fromkeys(entry.module for entry in FLOWS.values())
    heavy = heavy_after(
        repository,
        "assert main(['methods']) == 0",
        "assert main(['run', 'train-reformulation', '--list']) == 0",
        f"import {', '.join(modules)}",
        "import safetensors  # the probe sees what is imported",
    )
    assert heavy == [[], [], [], ["safetensors"]]
