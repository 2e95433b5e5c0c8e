"""Run Prefect's server behind the guard: `python -P -m deployments.server.run --port 4200`.

Settings come from the environment, as for `prefect server start`. Without an auth string it does
not start: on loopback, too, other users of the machine could ask it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from deployments.server.guard import App, names

GRACE_S = 10.0
"""Seconds for open requests, once the process that started the server has ended."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal comes; returns the exit status."""
    arguments = _parser().parse_args(argv)
    if not all(os.environ.get("PREFECT_SERVER_API_AUTH_STRING", "").partition(":")):
        print("server: PREFECT_SERVER_API_AUTH_STRING must be user:password", file=sys.stderr)
        return 2
    try:
        allowed = names(arguments.port, arguments.name, arguments.origin)
    except ValueError as error:
        print(f"server: {error}", file=sys.stderr)
        return 2
    if arguments.until_input_ends:
        end_with_input()
    os.umask(0o077)  # its database and logs are this user's alone
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    from deployments.server.guard import Guard
    from deployments.server.lost_limits import let_runs_outlive_limits
    from deployments.server.sign_in import PATH, SignIn

    settings = get_current_settings()
    auth = settings.server.api.auth_string
    assert auth is not None
    sign_in = SignIn(sign_in_folder(settings.home), auth.get_secret_value())
    let_runs_outlive_limits()
    app = checked(create_app(final=True), auth.get_secret_value())
    uvicorn.run(
        Guard(app, allowed, {PATH: sign_in}),
        host=arguments.host,
        port=arguments.port,
        log_level=settings.server.logging_level.lower(),
        timeout_keep_alive=settings.server.api.keepalive_timeout,
        ws_ping_interval=settings.server.api.websocket_ping_interval,
        ws_ping_timeout=settings.server.api.websocket_ping_timeout,
        server_header=False,
    )
    return 0


def checked(app: App, password: str) -> App:
    """Prefect's application behind the checks of what is sent, for those who know the password."""
    from deployments.server.job_variables import CheckedJobVariables
    from deployments.server.parameters import CheckedParameters
    from deployments.server.password import BehindPassword

    return BehindPassword(CheckedParameters(CheckedJobVariables(app)), app, password)


def end_with_input() -> None:
    """End this process once its standard input ends: with its parent, however that dies."""

    def watch() -> None:
        sys.stdin.buffer.read()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def sign_in_folder(home: Path) -> Path:
    """Where the keys of sign-in links are noted, in Prefect's own folder."""
    return home / "sign-in"


def server_command(host: str, port: int, *options: str) -> list[str]:
    """The command that starts it, with this interpreter.

    -P: a folder `deployments` in the working directory is not ours.
    """
    where = ("--host", host, "--port", str(port))
    return [sys.executable, "-P", "-m", "deployments.server.run", *where, *options]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="deployments.server.run", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=4200, help="port to listen on")
    parser.add_argument(
        "--until-input-ends", action="store_true", help="end with the process that started it"
    )
    parser.add_argument(
        "--name", action="append", default=[], help="NAME:PORT by which other machines reach it"
    )
    parser.add_argument(
        "--origin", action="append", default=[], help="web address of the UI behind a proxy"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
