"""The same tests on a local folder and on a real HTTP S3 API on loopback."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from storage.locations.location import Location
from tests.fakes.pictures import jpeg


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Address of moto's S3 server."""
    server_module = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def s3_environment(s3_server: str) -> Iterator[None]:
    """Endpoint and credentials where users put them: in the environment, nowhere else."""
    s3fs = pytest.importorskip("s3fs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", s3_server)
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        yield
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def s3_location(s3_environment: None) -> Location:
    """An empty bucket."""
    bucket = f"test-{uuid.uuid4().hex}"
    fsspec.filesystem("s3", use_listings_cache=False).mkdir(bucket)
    return Location(f"s3://{bucket}/some/prefix")


@pytest.fixture(params=["local", "s3"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """An empty place to publish in."""
    if request.param == "local":
        return Location(str(tmp_path / "root"))
    return request.getfixturevalue("s3_location")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder of three pictures."""
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(jpeg(number))
    return folder
