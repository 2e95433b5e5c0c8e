"""A network that was published below a root is used only with the files that were published."""

from __future__ import annotations

from pathlib import Path

from models.checkpoints import file_sha256
from storage.locations import manifest
from storage.locations.damage import DamagedFile
from storage.locations.location import Location

_FOLDER = "/checkpoints/"


def require_as_published(checkpoint: str, files: Path) -> None:
    """Compare a checkpoint with the manifest of its root, if it lies below one.

    Args:
        checkpoint: The folder that was asked for, also on S3.
        files: The folder on this machine that holds its files, or some of them.

    Raises:
        DamagedFile: A file is not that which its training published, or is lost.
    """
    root, found, rest = checkpoint.rstrip("/").rpartition(_FOLDER)
    if not found or not files.is_dir():
        return
    location, folder = Location(root), f"checkpoints/{rest}"
    records = manifest.read_records(location.list(f"{manifest.FOLDER}/{folder}"))
    for path, own in records.items():
        file = files / path.removeprefix(f"{folder}/")
        if file.suffix == ".md":  # for people
            continue
        if not file.is_file():
            if location.is_local:
                raise DamagedFile(location.join(path), "it was published and is not there any more")
            continue
        if file_sha256(file)[:32] not in {record.digest for record in own}:
            raise DamagedFile(location.join(path), "its content is not that which was published")
