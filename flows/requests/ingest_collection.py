"""What is asked of `ingest`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flows.forms import Overrides, ProfileName
from flows.profiles import resolve_profile
from flows.requests.checks import require_root
from storage.collections.known import IfTaken, Layout, check_name
from storage.locations.access import require_reachable
from storage.locations.location import Location


@dataclass(frozen=True)
class IngestRequest:
    """Images, and the collection that they come into."""

    root: str
    source: str
    name: str
    class_field: str
    if_taken: IfTaken
    layout: Layout = "files"


def ingest_collection(
    source: str,
    name: str,
    profile: ProfileName = "tiny",
    settings: Overrides = None,
    class_field: str = "meta_class",
    if_taken: IfTaken = "refuse",
    layout: Layout = "files",
) -> IngestRequest:
    """Ingest images into a named collection; again from the same place refreshes it.

    Args:
        source: A folder, one file, webdataset tars, Parquet with a bytes column, or s3://.
        name: Name of the collection.
        class_field: Column or JSON key of an image's meta class, where the source has one.
        if_taken: If the name stands for other images already: refuse, replace (stand for these
            alone; the others stay stored) or add (stand for both).
        layout: files: images of any kind. fashion200k, nlvr2: a published set, whose label files
            say which images it holds and in which class; those that are missing are counted.
    """
    chosen = resolve_profile(profile, settings)
    check_name(name)
    origin = Location(source)
    if origin.is_local and not Path(origin.root).exists():
        raise FileNotFoundError(f"there is nothing at {origin}; give a folder, a file or s3://")
    require_reachable(origin)
    require_root(chosen)
    return IngestRequest(chosen.root, source, name, class_field, if_taken, layout)
