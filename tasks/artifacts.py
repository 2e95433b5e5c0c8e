"""Artifacts of a run in Prefect's UI: small tables, never the data behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from prefect.artifacts import create_markdown_artifact

from models.redaction import redact
from tasks.patience import while_server_restarts
from tasks.report.markdown import Markdown, markdown_table, plain
from tasks.unrecorded import is_unrecorded

LARGEST: Final = 150_000
"""Bytes of one artifact; the UI's list of artifacts goes blank when they are megabytes."""


def publish_markdown(key: str, text: str, description: str) -> None:
    """Show a page in the UI, if the run is recorded; one that is too long is cut and says so.

    Raises:
        httpx.HTTPError: the server refused it, or could not be reached for minutes.
    """
    if is_unrecorded():
        return
    text = redact(text)
    if len(text.encode()) > LARGEST:
        text = text.encode()[:LARGEST].decode(errors="ignore")
        text = text.rsplit("\n", 1)[0] + "\n\n*Cut here: the full table is in the report.*"
    while_server_restarts()(
        create_markdown_artifact, markdown=text, key=key, description=redact(description)
    )


def stages_markdown(stages: Sequence[Mapping[str, Any]]) -> Markdown:
    """A table of the rows that each stage made, reused and failed to make, and where they lie.

    Where texts were longer than a text tower's context, a column counts them.
    """
    columns: tuple[str, ...] = ("stage", "made", "reused", "failed", "seconds", "table")
    places = [str(s["where"]).rsplit("/", 2) for s in stages]  # ROOT/captions/KEY
    rows: list[tuple[object, ...]] = [
        (s["title"], s["made"], s["reused"], s["failed"], f"{s['seconds']:.1f}", "/".join(own))
        for s, (_, *own) in zip(stages, places, strict=True)
    ]
    if any(s["cut_texts"] for s in stages):
        columns = (*columns, "texts cut")
        rows = [(*row, s["cut_texts"]) for row, s in zip(rows, stages, strict=True)]
    roots = dict.fromkeys(root for root, *_ in places)
    below = f"\n\nTables lie below {', '.join(map(plain, roots))}." if roots else ""
    return Markdown(f"{markdown_table(columns, rows)}{below}")
