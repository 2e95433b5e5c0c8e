"""The bucket of an S3 root: made if missing, and tested before anything relies on it."""

from __future__ import annotations

from botocore.exceptions import BotoCoreError

from deployments.errors import UserError
from storage.locations.location import Location


def ensure_bucket(root: str) -> bool:
    """Make the bucket of a root, and test that it publishes once; True if it was made.

    Endpoint and credentials come from the environment (AWS_*). A local root has no bucket and
    is only tested.

    Raises:
        UserError: the storage lets a second writer overwrite a published file, or cannot be used.
    """
    location = Location(root)
    try:
        made = not location.is_local and _make(location.root.removeprefix("s3://").split("/")[0])
        fault = location.probe()
    except (BotoCoreError, OSError) as error:
        raise UserError(
            f"{root} cannot be used: {error}. Check AWS_ENDPOINT_URL and the keys"
        ) from error
    if fault:
        raise UserError(
            f"{fault}. Tables need a store that honours `If-None-Match: *` on PUT, also when two "
            "writers come at once"
        )
    return made


def _make(bucket: str) -> bool:
    import s3fs

    system = s3fs.S3FileSystem(use_listings_cache=False)
    if system.exists(bucket):
        return False
    try:
        system.mkdir(bucket)
    except FileExistsError:  # another owner's, which the keys may still write to: the probe tells
        return False
    return True
