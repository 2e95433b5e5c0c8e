"""Start a Prefect server with everything that cirflow needs: work pools, limits, the deployments of
prefect.yaml, the workers that run them, and the service (`cirflow serve`) over the same tables, to
which artifacts link. The addresses of both are printed. On a --host that other machines reach, the
service listens there too: set CIRFLOW_SERVICE_TOKEN to a secret and name its address
(--service-origin, or --service-name NAME:PORT), or leave it out (--no-service).

A repetition adds missing parts; running processes and changes made in the UI stay, and one that was
killed is taken up. Two at once wait for each other. The state (runs, schedules, logs) lies in
FOLDER/.cirflow/prefect and survives `cirflow down`. Relative paths in the forms start at FOLDER."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from deployments.display import console
from deployments.prefect_variables import check_variables
from deployments.stack.auth import CLIENT_VARIABLE
from deployments.stack.secret_blocks import add_secret_argument
from deployments.stack.service import wait_for_service
from deployments.stack.settings import StackSettings
from deployments.stack.stack import (
    as_client,
    prepare,
    refuse_other_settings,
    start_server,
    start_service,
    start_workers,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--folder", type=Path, default=Path("."), help="folder that runs work in")
    parser.add_argument("--host", default="127.0.0.1", help="address the server listens on")
    parser.add_argument(
        "--port", type=_number(1, 65535), default=4200, help="port the server listens on"
    )
    parser.add_argument("--origin", default="", help="web address of the UI, unless loopback")
    parser.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="NAME:PORT",
        help="how other machines reach the server without a proxy; may be repeated",
    )
    parser.add_argument(
        "--workers", type=_number(1, 10_000), default=2, help="flow runs at once on the CPU"
    )
    parser.add_argument(
        "--gpus",
        type=_gpus,
        default="auto",
        help="workers of the gpu pool: auto or a number",
    )
    parser.add_argument(
        "--service-port", type=_number(1, 65535), default=8600, help="port of the service"
    )
    parser.add_argument("--service-origin", default="", help="its web address behind a proxy")
    parser.add_argument(
        "--service-name",
        action="append",
        default=[],
        metavar="NAME:PORT",
        help="how other machines reach the service without a proxy; may be repeated",
    )
    parser.add_argument("--no-service", action="store_true", help="leave `cirflow serve` out")
    parser.add_argument(
        "--profile", default="tiny", help="of the service: tiny, small, production or a TOML file"
    )
    parser.add_argument(
        "--root", default="", help="tables that the service shows; default: the profile's"
    )
    add_secret_argument(parser)


def _number(least: int, most: int) -> Callable[[str], int]:
    def number(given: str) -> int:
        if not given.isdecimal() or not least <= int(given) <= most:
            raise argparse.ArgumentTypeError(f"a number from {least} to {most}, not {given!r}")
        return int(given)

    return number


def _gpus(given: str) -> str | int:
    if given != "auto" and not given.isdecimal():
        raise argparse.ArgumentTypeError(f"auto or a number of GPUs, not {given!r}")
    return given if given == "auto" else int(given)


def run(arguments: argparse.Namespace) -> int:
    """Bring everything up."""
    stack = StackSettings(
        folder=arguments.folder.resolve(),
        host=arguments.host,
        port=arguments.port,
        origin=arguments.origin,
        names=tuple(arguments.name),
        workers=arguments.workers,
        gpus=count_gpus() if arguments.gpus == "auto" else arguments.gpus,
        service_port=0 if arguments.no_service else arguments.service_port,
        service_origin=arguments.service_origin,
        service_names=tuple(arguments.service_name),
        profile=_file(arguments.profile),
        root=arguments.root,
    )
    stack.check()
    if stack.service_port:
        _check_service(stack)
    prepare(stack, _say)
    with stack.processes.alone(_say), as_client(stack):
        refuse_other_settings(stack)
        check_variables()
        start_server(stack, _say)
        from deployments.stack.connection import server_client
        from deployments.stack.registration import offer_choices, register_deployments
        from deployments.stack.resources import ensure_resources

        with server_client(stack.api_url) as client:
            for line in ensure_resources(client, secrets=arguments.secret).lines():
                _say(line)
            start_workers(stack, _say)  # they come up while deployments are registered
            start_service(stack, _say)
            register_deployments(client, stack.client_environment(), _say)
            offer_choices(client, str(stack.folder / ".cirflow"), stack.folder)
        if stack.service_port:
            wait_for_service(stack)
    _say(f"\nopen {stack.sign_in_link()}")
    _say("  this link signs one browser in, once; `cirflow up` prints another")
    _say(f"then {stack.origin or stack.url}/deployments: choose one, then Run > Custom run")
    if stack.service_port:
        there = stack.service_origin or stack.service_url
        _say(f"search, benchmarks, pictures and reports: {there}/")
    _say(f"from a terminal: export PREFECT_API_URL={stack.api_url}")
    if stack.auth_file.is_file():
        _say(f'  outside {stack.folder}, also {CLIENT_VARIABLE}="$(cat {stack.auth_file})"')
    _say(f"logs: {stack.processes.path}; stop: cirflow down")
    return 0


def _file(profile: str) -> str:
    """A profile by its name, or its file by a path that holds in every folder."""
    return str(Path(profile).resolve()) if profile.endswith(".toml") else profile


def _check_service(stack: StackSettings) -> None:
    """Refuse what the service would refuse after its start.

    Raises:
        UserError: other machines reach it and it has no token, or no name.
        ProfileError: an unknown profile.
    """
    from deployments.service.settings import ServiceSettings, token_of_environment
    from flows.profiles import resolve_profile

    profile = resolve_profile(stack.profile, {"root": stack.root} if stack.root else {})
    ServiceSettings(
        profile,
        host=stack.service_host,
        port=stack.service_port,
        names=stack.service_names,
        origin=stack.service_origin,
        token=token_of_environment(),
    ).check("--service-")


def count_gpus() -> int:
    """Number of visible GPUs, found without heavy imports."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip()])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def _say(line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
