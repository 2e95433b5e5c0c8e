"""Networks of other machines: fetched once, and again where they were replaced."""

from __future__ import annotations

import uuid

import fsspec

from storage.locations.location import Location
from tasks import networks


def test_a_replaced_network_on_s3_is_fetched_again(s3_environment: None) -> None:
    bucket = f"networks-{uuid.uuid4().hex}"
    fsspec.filesystem("s3", use_listings_cache=False).mkdir(bucket)
    place = Location(f"s3://{bucket}/network")
    place.replace("config.json", b"old")
    folder = networks.on_this_machine(place.root)
    assert (folder / "config.json").read_bytes() == b"old"
    assert networks.on_this_machine(place.root) == folder
    place.replace("config.json", b"new")
    assert (networks.on_this_machine(place.root) / "config.json").read_bytes() == b"new"
