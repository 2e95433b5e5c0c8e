"""Folder, address and environment of a stack."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from deployments.errors import UserError
from deployments.prefect_session import QUIET
from deployments.stack.auth import CLIENT_VARIABLE, SERVER_VARIABLE, read_auth_file
from deployments.stack.processes import ProcessFolder

PREFECT_YAML = "prefect.yaml"

PATIENCE = {"PREFECT_CLIENT_MAX_RETRIES": "8"}
"""Runs and workers survive eight minutes without a server (2 + 4 + ... + 256 seconds)."""


@dataclass(frozen=True)
class StackSettings:
    """One server with its workers.

    Attributes:
        folder: Working directory of all flow runs: relative paths in parameters start here.
        host: Address that the server listens on.
        port: Its port.
        workers: Flow runs that the cpu pool's worker takes at once.
        gpus: Workers of the gpu pool, each with one GPU of its own.
        origin: The one web address that may call the API from a browser; empty for loopback's.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 4200
    workers: int = 2
    gpus: int = 0
    origin: str = ""

    @property
    def home(self) -> Path:
        """Prefect's own state: database, results, settings."""
        return self.folder / ".cirflow" / "prefect"

    @property
    def processes(self) -> ProcessFolder:
        """Records and logs of the server and the workers."""
        return ProcessFolder(self.home / "processes")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def reached(self) -> str:
        """Address at which this machine reaches the server."""
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)

    @property
    def url(self) -> str:
        """Address of the UI for a browser on this machine."""
        host = f"[{self.reached}]" if ":" in self.reached else self.reached
        return f"http://{host}:{self.port}"

    @property
    def api_url(self) -> str:
        """Address of the API."""
        return f"{self.url}/api"

    @property
    def auth_file(self) -> Path:
        """File of the auth string that was made for a server that other machines can reach."""
        return self.home / "auth-string"

    @property
    def auth_string(self) -> str:
        """The auth string of clients: the environment's, or the one that was made; else empty."""
        given = os.environ.get(SERVER_VARIABLE, "")
        return given if given or self.is_loopback else read_auth_file(self.auth_file)

    @property
    def shown(self) -> dict[str, str]:
        """Settings of a running server that its command does not show; no secrets."""
        return {"origin": self.origin}

    def check(self) -> None:
        """Refuse settings that are not safe.

        Raises:
            UserError: no origin for an address that is not loopback, or an auth string that is
                not user:password.
        """
        if not self.is_loopback and not self.origin:
            raise UserError(
                f"{self.host} can be reached from other machines: name the one address that "
                "browsers will open, for example --origin https://prefect.example.org, or stay on "
                "127.0.0.1"
            )
        given = os.environ.get(SERVER_VARIABLE)
        if given is not None and not all(given.partition(":")):
            raise UserError(f"{SERVER_VARIABLE} must be user:password, both not empty")

    def server_environment(self) -> dict[str, str]:
        """Environment of the server: quiet, closed, and with its state in this folder."""
        auth = self.auth_string
        return {
            **self.client_environment(),
            **({SERVER_VARIABLE: auth} if auth else {}),
            "PREFECT_SERVER_API_HOST": self.host,
            "PREFECT_SERVER_API_PORT": str(self.port),
            # On loopback, too: the server takes JSON of no content type, which any page may post.
            "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": self.origin or _origins(self.port),
            "PREFECT_SERVER_UI_API_URL": f"{self.origin or self.url}/api",
        }

    def client_environment(self) -> dict[str, str]:
        """Environment of workers and of clients that start flow runs."""
        environment = {**PATIENCE, **os.environ, **QUIET}
        environment |= {
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.api_url,
            "CIRFLOW_HOME": str(self.folder),
            "CIRFLOW_HEAVY_POOL": "gpu" if self.gpus else "cpu",
            "PYTHONUNBUFFERED": "1",
        }
        auth = self.auth_string
        if auth:
            environment[CLIENT_VARIABLE] = auth
        return environment


def prefect_command(*arguments: str) -> list[str]:
    """A command of this environment's own Prefect."""
    return [sys.executable, "-m", "prefect", *arguments]


def _origins(port: int) -> str:
    return f"http://127.0.0.1:{port},http://localhost:{port}"


def project_file(name: str) -> Path:
    """A file at the top of the project, where this package was installed from.

    Raises:
        UserError: the package was installed without it.
    """
    path = Path(__file__).resolve().parents[2] / name
    if not path.is_file():
        raise UserError(
            f"{name} is not next to the packages ({path}): run cirflow from a checkout, or install "
            "it with `pip install -e .`"
        )
    return path
