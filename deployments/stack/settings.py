"""Folder, address and environment of a stack."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from deployments.errors import UserError
from deployments.hosts import EVERYWHERE, is_loopback, web_address
from deployments.prefect_session import QUIET, RECORDS
from deployments.server.guard import names
from deployments.server.run import sign_in_folder
from deployments.server.sign_in import PATH, make_key
from deployments.service.settings import TOKEN_VARIABLE
from deployments.stack.auth import CLIENT_VARIABLE, SERVER_VARIABLE, read_auth_file
from deployments.stack.processes import ProcessFolder
from tasks.explorer.address import SERVICE_VARIABLE

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
        names: NAME:PORT under which other machines reach the server without the proxy.
        service_port: Port of the service; 0 leaves it out. It listens where the server does.
        service_origin: Web address of the service behind a proxy; empty without one.
        service_names: NAME:PORT under which other machines reach the service without a proxy.
        profile: Profile of the service's searches.
        root: Root that the service shows; empty: the profile's.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 4200
    workers: int = 2
    gpus: int = 0
    origin: str = ""
    names: tuple[str, ...] = ()
    service_port: int = 0
    service_origin: str = ""
    service_names: tuple[str, ...] = ()
    profile: str = "tiny"
    root: str = ""

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
        return is_loopback(self.host)

    @property
    def url(self) -> str:
        """Address of the UI for a browser on this machine."""
        return web_address(self.host, self.port)

    @property
    def api_url(self) -> str:
        """Address of the API."""
        return f"{self.url}/api"

    @property
    def service_host(self) -> str:
        """Address that the service listens on."""
        return "127.0.0.1" if self.is_loopback else self.host

    @property
    def service_url(self) -> str:
        """Address of the service for a browser on this machine; empty where it is left out."""
        return web_address(self.service_host, self.service_port) if self.service_port else ""

    @property
    def linked_service(self) -> str:
        """Address of the service in links that people open; empty where it has no known one."""
        if self.service_port and self.service_origin:
            return self.service_origin
        return self.service_url if self.is_loopback else ""

    @property
    def auth_file(self) -> Path:
        """File of the auth string that was made for the server."""
        return self.home / "auth-string"

    @property
    def auth_string(self) -> str:
        """The auth string of clients: the environment's, or the one that was made; else empty.

        Raises:
            UserError: others can read or write the file.
        """
        return os.environ.get(SERVER_VARIABLE, "") or read_auth_file(self.auth_file)

    @property
    def hosts(self) -> tuple[str, ...]:
        """Values of `Host` beside loopback's and the origin's."""
        own = () if self.is_loopback or self.host in EVERYWHERE else (self.url[len("http://") :],)
        return (*own, *self.names)

    def sign_in_link(self) -> str:
        """A new link that signs one browser in, once."""
        key = make_key(sign_in_folder(self.home))
        return f"{self.origin or self.url}{PATH}#{key}"

    def check(self) -> None:
        """Refuse settings that are not safe.

        Raises:
            UserError: no origin for an address that is not loopback, a name or origin that no
                browser sends, or an auth string that is not user:password.
        """
        try:
            names(self.port, self.hosts, [self.origin] if self.origin else [])
        except ValueError as error:
            raise UserError(str(error)) from error
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
        return {
            **self.client_environment(),
            SERVER_VARIABLE: self.auth_string,
            "PREFECT_SERVER_API_HOST": self.host,
            "PREFECT_SERVER_API_PORT": str(self.port),
            # On loopback, too: the server takes JSON of no content type, which any page may post.
            "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
            "PREFECT_SERVER_API_CORS_ALLOWED_ORIGINS": self.origin or _origins(self.port),
            "PREFECT_SERVER_UI_API_URL": f"{self.origin or self.url}/api",
        }

    def service_environment(self) -> dict[str, str]:
        """Environment of the service, which speaks to no Prefect server: no auth string."""
        secrets = (CLIENT_VARIABLE, SERVER_VARIABLE)
        own = {k: v for k, v in self.client_environment().items() if k not in secrets}
        token = os.environ.get(TOKEN_VARIABLE)
        return {**own, TOKEN_VARIABLE: token} if token else own

    def client_environment(self) -> dict[str, str]:
        """Environment of workers and of clients that start flow runs."""
        environment = {**PATIENCE, **os.environ, **QUIET, **RECORDS}
        environment |= {
            "PREFECT_HOME": str(self.home),
            "PREFECT_API_URL": self.api_url,
            "CIRFLOW_HOME": str(self.folder),
            "CIRFLOW_HEAVY_POOL": "gpu" if self.gpus else "cpu",
            "PYTHONUNBUFFERED": "1",
        }
        environment.pop(TOKEN_VARIABLE, None)  # runs need it for nothing
        if self.linked_service:
            environment.setdefault(SERVICE_VARIABLE, self.linked_service)
        auth = self.auth_string
        if auth:
            environment[CLIENT_VARIABLE] = auth
        return environment


def up_here(folder: Path) -> StackSettings | None:
    """The stack whose server `cirflow up` runs in a folder, if there is one."""
    processes = StackSettings(folder).processes
    if processes.running("server") is None:
        return None
    words = processes.command("server")
    given = {name: words[words.index(name) + 1] for name in ("--host", "--port") if name in words}
    if len(given) < 2:
        return None
    return StackSettings(folder, host=given["--host"], port=int(given["--port"]))


def running_here(api_url: str, folder: Path) -> StackSettings | None:
    """The stack that `cirflow up` runs in a folder, if that is the one with this API.

    Others' servers never get its auth string: the process that listens must be the recorded one.
    """
    stack = up_here(folder)
    if stack is None:
        return None
    same = {stack.api_url, stack.api_url.replace("127.0.0.1", "localhost")}
    return stack if api_url.rstrip("/") in same else None


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
