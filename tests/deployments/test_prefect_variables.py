"""Values of Prefect's variables that cannot be used are refused by name, in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.errors import UserError
from deployments.prefect_variables import check_address


def refused(folder: Path, repository: Path, name: str, value: str) -> str:
    """What a command says that is typed with the variable set."""
    code = (
        "from deployments import cli\n"
        "from deployments.prefect_session import configure_prefect\n"
        "raise SystemExit(cli._guarded(lambda _: configure_prefect() or 0, None, ''))"
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**kept, "PYTHONPATH": str(repository), name: value},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("PREFECT_API_URL", "http://[::1/api", "give http://HOST:PORT/api"),
        ("PREFECT_HOME", "/dev/null/home", "name another"),
        ("PREFECT_CLIENT_MAX_RETRIES", "many", "valid integer"),
        ("PREFECT_LOGGING_LEVEL", "LOUD", "'DEBUG', 'INFO'"),
    ],
)
def test_a_value_that_cannot_be_used_is_one_line(
    tmp_path: Path, repository: Path, name: str, value: str, remedy: str
) -> None:
    said = refused(tmp_path, repository, name, value)
    assert said.startswith(f"cirflow: {name}='{value}'")
    assert remedy in said
    assert "unset it" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "address", ["http://[::1]:4200/api", "http://127.0.0.1:4200/api", "https://prefect.example/api"]
)
def test_addresses_of_servers_are_taken(address: str) -> None:
    check_address(address)


@pytest.mark.parametrize(
    "address", [" ", "nonsense", "ftp://a/api", "http://", "http://a:x/api", "http://a:99999/api"]
)
def test_what_is_not_an_address_is_refused(address: str) -> None:
    with pytest.raises(UserError, match="is not a web address"):
        check_address(address)
