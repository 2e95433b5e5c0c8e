"""Serve pages and an API over a root: search with pictures and texts, models kept warm.

  cirflow serve                                     then open the address that it prints
  cirflow serve --profile my.toml --port 8700
  curl http://127.0.0.1:8600/v1/galleries           the API; its description: /docs

Galleries are collections that were ingested (`cirflow ingest`) and embedded
(`cirflow run embed-gallery`) under the same profile. Only this machine reaches the service. For
others, name the address (--host, --name NAME:PORT, or --origin https://NAME behind a proxy) and set
CIRFLOW_SERVICE_TOKEN to a secret: browsers ask for it as a password, programs send it as
`Authorization: Bearer TOKEN`. Prefect is not started."""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from deployments.errors import UserError
from deployments.place import add_place, place_words, profile_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8600, help="port to listen on")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="NAME:PORT",
        help="how other machines reach it without a proxy; may be repeated",
    )
    parser.add_argument("--origin", default="", help="its web address behind a proxy")
    parser.add_argument(
        "--cold", action="store_true", help="load galleries and models when they are first needed"
    )
    add_place(parser)


def run(arguments: argparse.Namespace, fault_of: Callable[[str], str] = lambda gallery: "") -> int:
    """Serve until a signal comes; `fault_of` says what went wrong beside it with a gallery."""
    from deployments.service.settings import ServiceSettings, token_of_environment
    from storage.locations.access import require_reachable
    from storage.locations.location import Location

    profile = profile_of(arguments)
    settings = ServiceSettings(
        profile,
        host=arguments.host,
        port=arguments.port,
        names=tuple(arguments.name),
        origin=arguments.origin,
        token=token_of_environment(),
        chosen=tuple(place_words(arguments)),
        warm=not arguments.cold,
        fault_of=fault_of,
    )
    settings.check()
    location = Location(profile.root)
    require_reachable(location)
    if location.is_local:
        _look_at(Path(location.root))
    require_free(settings.host, settings.port)
    import uvicorn

    from deployments.service.app import create_app
    from deployments.service.memory import give_back_large_blocks

    give_back_large_blocks()
    app = create_app(settings)
    print(f"open {settings.url}/  (stop: Ctrl-C)", file=sys.stderr)
    uvicorn.run(
        app, host=settings.host, port=settings.port, log_level="warning", server_header=False
    )
    return 0


def _look_at(root: Path) -> None:
    """Say that a root is not there yet.

    Raises:
        UserError: it is not a folder.
    """
    if not root.exists():
        made = f"`cirflow ingest SOURCE --name NAME --root {root}`"
        said = f"the root is not there yet; make it with {made}, or name another (--root)"
        print(f"{root}: {said}", file=sys.stderr)
    elif not root.is_dir():
        raise UserError(f"{root} is not a folder; name the root of the tables (--root DIR)")


def require_free(host: str, port: int) -> None:
    """Refuse an address that somebody listens on, before anything is loaded.

    Raises:
        UserError: the address cannot be had, or the number is not one of a port.
    """
    if not 1 <= port <= 65535:
        raise UserError(f"--port is a number from 1 to 65535, not {port}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError as error:
            raise UserError(
                f"{host}:{port} cannot be listened on ({error.strerror}); give another --port"
            ) from error
