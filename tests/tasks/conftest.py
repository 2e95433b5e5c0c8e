"""What several of these tests stand on: the loopback S3 of the storage tests."""

from __future__ import annotations

from tests.storage.conftest import s3_environment, s3_location, s3_server

__all__ = ["s3_environment", "s3_location", "s3_server"]
