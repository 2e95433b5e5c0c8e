"""Ingest images: a folder, tars, Parquet or an s3:// prefix becomes a collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from flows.form_choices import offer_what_exists
from flows.requests import ingest_collection as requests
from flows.requests.prepared import prepared_by
from flows.running import watching
from models.plain_text import escaped
from models.spelling import agreed
from storage.collections.collection import NothingUsable, ingest
from storage.collections.known import IfTaken, Layout
from storage.locations.location import Location
from tasks import progress
from tasks.artifact_keys import artifact_key
from tasks.artifacts import publish_markdown
from tasks.redacted import redacting
from tasks.report.markdown import markdown_table, plain
from tasks.unrecorded import run_task


@task(task_run_name="ingest {name}", cache_policy=NO_CACHE)
@redacting
def ingest_source(
    root: str,
    source: str,
    name: str,
    class_field: str = "meta_class",
    if_taken: IfTaken = "refuse",
    layout: Layout = "files",
) -> dict[str, Any]:
    """Read the new inputs of a source; costs one listing if there are none."""
    done = 0

    def report(count: int, total: int | None) -> None:
        nonlocal done
        progress.tick(count - done)
        done = count

    try:
        summary = ingest(
            Location(root),
            source,
            name,
            if_taken=if_taken,
            class_field=class_field,
            layout=layout,
            progress=report,
        )
    except NothingUsable as error:
        return error.summary.as_json() | {"said": str(error)}
    return summary.as_json() | {"said": summary.change.in_words() or "a new collection"}


def run_ingest(
    root: str,
    source: str,
    name: str,
    class_field: str = "meta_class",
    if_taken: IfTaken = "refuse",
    layout: Layout = "files",
) -> dict[str, Any]:
    """Ingest with progress shown; returns the summary as plain JSON.

    Raises:
        ValueError: no input is a usable image.
    """
    with watching(f"ingest {name}", 0, 0) as listener, progress.listening(listener):
        made: dict[str, Any] = run_task(
            ingest_source, root, source, name, class_field, if_taken, layout
        )
    if made["unusable"]:
        _show_unusable(name, made)
    if not made["images"]:
        raise ValueError(escaped(made["said"]))
    offer_what_exists()
    return made


@flow(name="ingest", flow_run_name="ingest {name}", persist_result=False, result_serializer="json")
@redacting
@prepared_by(requests.ingest_collection)
def ingest_collection(asked: requests.IngestRequest) -> State[Any]:
    """Ingest, and say what changed."""
    made = run_ingest(
        asked.root, asked.source, asked.name, asked.class_field, asked.if_taken, asked.layout
    )
    files, images = made["files"], made["images"]
    message = f"{files} {agreed(files, 'input')}, {images} {agreed(images, 'image')}: "
    message += f"{made['said']} in {asked.root}"
    message += "".join(f"; {note}" for note in made["notes"])
    if made["unusable"]:
        named = [f"{path}: {status} ({reason})" for path, status, reason in made["unusable"][:3]]
        message += f"; {sum(made['failed'].values())} not usable, first {'; '.join(named)}"
    return Completed(message=escaped(message), data=made)


def _show_unusable(name: str, made: Mapping[str, Any]) -> None:
    """Leave the unusable inputs in Prefect's UI, each with its reason."""
    counts = [f"{count} {plain(status)}" for status, count in made["failed"].items()]
    table = markdown_table(("input", "status", "reason"), made["unusable"])
    text = f"## Not usable in {plain(name)}: {', '.join(counts)}\n\n{table}"
    publish_markdown(artifact_key("ingest", name), text, f"Inputs of {name} without an image")
