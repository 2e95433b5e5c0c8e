"""`torch.compile` without a compiler: it captures graphs and runs them as they stand."""

from __future__ import annotations

import functools
from typing import Any

import pytest


def capture_graphs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Replace `torch.compile`; every graph that it captures from now on is in the list."""
    import torch

    captured: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        captured.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    return captured
