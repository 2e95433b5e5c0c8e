"""The bucket of an S3 root: made if it is missing, and its server tried before anything relies on
it."""

from __future__ import annotations

from deployments.errors import UserError
from storage.locations import Location


def ensure_bucket(root: str) -> bool:
    """Make the bucket of a root, and check that it publishes once; True if it was made.

    Endpoint and credentials come from the environment (AWS_*). A local root needs no bucket and
    is only tried.

    Raises:
        UserError: the storage lets a second writer overwrite a published file, or cannot be used.
    """
    location = Location(root)
    made = not location.is_local and _make(location.root.removeprefix("s3://").split("/")[0])
    if fault := location.probe():
        raise UserError(
            f"{fault}. Tables need a store that honours `If-None-Match: *` on PUT, also when two "
            "writers come at once"
        )
    return made


def _make(bucket: str) -> bool:
    import s3fs

    system = s3fs.S3FileSystem()
    if system.exists(bucket):
        return False
    system.mkdir(bucket)
    return True
