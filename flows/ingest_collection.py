"""Ingest images: a folder, tars, Parquet or an s3:// prefix becomes a collection."""

from __future__ import annotations

from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State

from flows.forms import Overrides, ProfileName
from flows.profiles import resolve_profile
from flows.running import watching
from storage.collections.collection import ingest
from storage.collections.names import IfTaken
from storage.locations.location import Location
from tasks import progress
from tasks.redacted import redacting
from tasks.unrecorded import run_task


@task(task_run_name="ingest {name}", cache_policy=NO_CACHE)
@redacting
def ingest_source(
    root: str,
    source: str,
    name: str,
    class_field: str = "meta_class",
    if_taken: IfTaken = "refuse",
) -> dict[str, Any]:
    """Read the new inputs of a source; costs one listing if there are none."""
    done = 0

    def report(count: int, total: int | None) -> None:
        nonlocal done
        progress.tick(count - done)
        done = count

    summary = ingest(
        Location(root),
        source,
        name,
        if_taken=if_taken,
        class_field=class_field,
        progress=report,
    )
    return summary.as_json() | {"said": summary.change.in_words() or "a new collection"}


def run_ingest(
    root: str,
    source: str,
    name: str,
    class_field: str = "meta_class",
    if_taken: IfTaken = "refuse",
) -> dict[str, Any]:
    """Ingest with progress shown; returns the summary as plain JSON."""
    with watching(f"ingest {name}", 0, 0) as listener, progress.listening(listener):
        return run_task(ingest_source, root, source, name, class_field, if_taken)


@flow(name="ingest", flow_run_name="ingest {name}", persist_result=False, result_serializer="json")
@redacting
def ingest_collection(
    source: str,
    name: str,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    class_field: str = "meta_class",
    if_taken: IfTaken = "refuse",
) -> State[Any]:
    """Ingest images into a named collection; again from the same place refreshes it.

    Args:
        source: A folder, one file, webdataset tars, Parquet with a bytes column, or s3://.
        name: Name of the collection.
        class_field: Column or JSON key of an image's meta class, where the source has one.
        if_taken: If the name stands for other images already: refuse, replace (stand for these
            alone; the others stay stored) or add (stand for both).
    """
    root = resolve_profile(profile, settings).root
    made = run_ingest(root, source, name, class_field, if_taken)
    message = f"{made['files']} inputs, {made['images']} images: {made['said']}"
    return Completed(message=message, data=made)
