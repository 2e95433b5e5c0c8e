"""Fixtures of other rooms that these tests use, too."""

from tests.storage.conftest import s3_environment, s3_server

__all__ = ["s3_environment", "s3_server"]
