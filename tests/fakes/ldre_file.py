"""LDRE's layout with synthetic content: a benchmark's records with captions and edits added."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

N = 15


def ldre_records(annotations: Path) -> list[dict[str, Any]]:
    """CIRCO's records with the seven fields that LDRE's published file adds."""
    records = json.loads(annotations.read_text())
    return [{**record, **added(row)} for row, record in enumerate(records)]


def added(row: int) -> dict[str, Any]:
    """The added fields of one record; no two records have a text in common."""
    captions = [f"a {shape(i)} number {row} seen {i} times" for i in range(N)]
    return {
        "multi_caption_opt": captions,
        "multi_gpt-3.5_opt": [f" a {shape(i + 1)} number {row}, {i} times\n" for i in range(N)],
        "blip2_caption": f"one {shape(row)} {row}",
        "gpt-3.5-turbo": f"another {shape(row + 1)} {row}",
        "blip2_caption_t5": f"t5 sees {row}",
        "gpt-3.5-turbo_t5": f"t5 edits {row}",
        "gpt-3.5-turbo_none": f"no caption {row}",
    }


def shape(number: int) -> str:
    """A shape by number."""
    return ("red circle", "blue square", "green star", "small cross")[number % 4]


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """JSONL in our own form."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path
