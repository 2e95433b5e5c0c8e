"""The service beside the server: `cirflow serve` on the server's host, over the folder's tables."""

from __future__ import annotations

import socket
import sys
import time

from deployments.errors import UserError
from deployments.hosts import EVERYWHERE
from deployments.stack.settings import StackSettings

NAME = "service"
"""Name of its record and log."""
START_SECONDS = 300.0
"""Longest wait for it: on a busy machine its imports alone take a minute."""


def service_command(stack: StackSettings) -> list[str]:
    """Its command line."""
    place = [f"--port={stack.service_port}", f"--profile={stack.profile}"]
    place += [f"--root={stack.root}"] if stack.root else []
    place += [] if stack.is_loopback else [f"--host={stack.service_host}"]
    place += [f"--name={name}" for name in stack.service_names]
    place += [f"--origin={stack.service_origin}"] if stack.service_origin else []
    return [sys.executable, "-m", "deployments.cli", "serve", *place]


def refuse_taken_service_port(stack: StackSettings) -> None:
    """Try to listen where the service will.

    Raises:
        UserError: somebody else listens there.
    """
    if not stack.service_port or stack.processes.running(NAME) is not None:
        return
    family = socket.AF_INET6 if ":" in stack.service_host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((stack.service_host, stack.service_port))
        except OSError as error:
            raise UserError(
                f"port {stack.service_port} of the service cannot be had "
                f"({(error.strerror or str(error)).lower()}): choose another (--service-port), or "
                "leave the service out (--no-service)"
            ) from error


def wait_for_service(stack: StackSettings) -> None:
    """Wait until the service listens.

    Raises:
        UserError: it ended, or stayed silent.
    """
    reached = EVERYWHERE.get(stack.service_host, stack.service_host)
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with socket.create_connection((reached, stack.service_port), timeout=2):
                return
        except OSError as error:
            if stack.processes.running(NAME) is None or time.monotonic() > deadline:
                raise UserError(
                    f"the service does not answer at {stack.service_url}; see the end of its log, "
                    f"{stack.processes.log(NAME)}. All else is up"
                ) from error
        time.sleep(0.2)
