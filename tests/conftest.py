"""Fixtures shared by all tests."""

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.shared_vocabulary import share_vocabulary

# Tests measure no speed: one thread keeps them steady on small machines.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
# Test items and libraries are millions of objects that stay; by default they are walked again and
# again, which was a twelfth of the suite's processor time.
gc.set_threshold(10_000, 20, 20)

# Tests start hundreds of processes; without bytecode each compiles what it imports of this tree.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

REPOSITORY = Path(__file__).resolve().parent.parent
LONGEST = ("ui", "cluster", "serving", "deployments", "tasks")
"""Folders whose files take longest, in this order."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that it does not run alone at the end."""

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(REPOSITORY / "tests").parts[0]
        return LONGEST.index(folder) if folder in LONGEST else len(LONGEST)

    items.sort(key=place)


def pytest_runtest_setup() -> None:
    """Read CLIP's vocabulary once, as soon as a test has imported what reads it."""
    share_vocabulary()


@pytest.fixture(scope="module", autouse=True)
def only_new_objects_are_walked() -> None:
    """Keep what earlier files imported out of the garbage collections of this one."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real annotation files and photographs that lie beside the source tree, if any."""
    path = REPOSITORY.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"no real data: {path} does not exist")
    return path


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of Prefect, to be copied: one for all processes of pytest."""
    from tests.fakes.prefect_database import migrated

    own = tmp_path_factory.getbasetemp()
    return migrated(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own)


@pytest.fixture(scope="session")
def prefect_api(
    migrated_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """One temporary Prefect server for all flow tests."""
    from prefect.testing import utilities

    folder = tmp_path_factory.mktemp("prefect")
    shutil.copyfile(migrated_database, folder / "prefect-test.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utilities, "mkdtemp", lambda: str(folder))
        with utilities.prefect_test_harness(server_startup_timeout=300):
            yield
