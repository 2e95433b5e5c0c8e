"""What several of these tests stand on: the loopback S3 of the storage tests, and trainings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.storage.conftest import s3_environment, s3_server

if TYPE_CHECKING:
    from tasks.training.triplet_sets import TripletSet

__all__ = ["s3_environment", "s3_server"]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Sums in one order, so that equal runs are equal to the bit."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def triplets(tmp_path_factory: pytest.TempPathFactory) -> TripletSet:
    """Sixty triplets over drawn pictures."""
    from tests.fakes.triplet_tables import write_triplets  # slow, and of no use to most

    return write_triplets(str(tmp_path_factory.mktemp("triplets")))
