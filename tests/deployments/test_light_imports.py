"""Whoever only asks for forms, lists or methods does not wait for torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.commands.run import FLOWS

HEAVY = ("torch", "torchvision", "transformers", "open_clip", "lightning", "peft", "safetensors")
"""Seconds of processor time each, and of no use before a model is loaded."""


def heavy_after(repository: Path, code: str) -> list[str]:
    """What of it a new process has imported once it ran some code."""
    said = f"import json, sys\n{code}\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", said],
        cwd=repository,
        env={**os.environ, "PREFECT_API_URL": "http://127.0.0.1:1/api"},
        capture_output=True,
        text=True,
        check=True,
    )
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_the_probe_sees_what_is_imported(repository: Path) -> None:
    assert heavy_after(repository, "import safetensors") == ["safetensors"]


def test_flows_are_imported_without_models(repository: Path) -> None:
    modules = dict.fromkeys(entry.module for entry in FLOWS.values())
    assert heavy_after(repository, f"import {', '.join(modules)}") == []


@pytest.mark.parametrize("words", [["methods"], ["run", "train-reformulation", "--list"]])
def test_reading_commands_load_no_model(repository: Path, words: list[str]) -> None:
    code = f"from deployments.cli import main\nassert main({words}) == 0"
    assert heavy_after(repository, code) == []
