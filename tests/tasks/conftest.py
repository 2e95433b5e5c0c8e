"""The loopback S3 of the storage tests, for the tests of what lies on top of it."""

from tests.storage.conftest import s3_environment, s3_server

__all__ = ["s3_environment", "s3_server"]
