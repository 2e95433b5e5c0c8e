"""A root's bucket is made once, on a real S3 API on loopback."""

from __future__ import annotations

import uuid

import fsspec
import pytest

from deployments.errors import UserError
from deployments.stack.bucket import ensure_bucket


@pytest.mark.usefixtures("s3_environment")
def test_a_missing_bucket_is_made_and_one_that_is_there_is_left() -> None:
    bucket = f"test-{uuid.uuid4().hex}"
    assert ensure_bucket(f"s3://{bucket}/data") is True
    assert ensure_bucket(f"s3://{bucket}/data") is False
    system = fsspec.filesystem("s3", use_listings_cache=False)
    assert system.exists(bucket)
    assert system.find(bucket) == []  # the probe leaves nothing behind


def test_a_store_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(UserError, match="AWS_ENDPOINT_URL"):
        ensure_bucket("s3://nowhere/data")
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_a_folder_is_only_tried(tmp_path: object) -> None:
    assert ensure_bucket(f"{tmp_path}/root") is False
