"""Make everything that flow runs need on a remote server: the bucket, work pools, limits, the rule
for dead runs, Secret blocks, and the deployments of prefect.yaml. A repetition adds missing parts
and keeps changes made in the UI, so containers run it at every start.

    python -m deployments.stack.register --pool-type process --root s3://cirflow/data

Needs PREFECT_API_URL, and PREFECT_API_AUTH_STRING where the server asks for it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from deployments.errors import UserError
from deployments.prefect_session import QUIET
from deployments.prefect_variables import check_variables
from deployments.stack.connection import server_client
from deployments.stack.job_templates import POOL_TYPES, Images
from deployments.stack.registration import offer_choices, register_deployments
from deployments.stack.resources import ensure_resources
from deployments.stack.secret_blocks import add_secret_argument


def main(argv: Sequence[str] | None = None) -> int:
    """Register everything; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        register(arguments)
    except (UserError, ValueError) as error:
        print(f"register: {error}", file=sys.stderr)
        return 2
    return 0


def register(arguments: argparse.Namespace) -> None:
    """Make missing parts in the order in which they are needed.

    Raises:
        UserError: no server is named or answers, the storage does not publish once, a secret has
            no value, or Prefect refused.
        ValueError: runs in containers without an image.
    """
    if not os.environ.get("PREFECT_API_URL"):
        raise UserError("PREFECT_API_URL is not set: name the server, http://HOST:4200/api")
    os.environ.update(QUIET)
    check_variables()
    if arguments.root:
        from deployments.stack.bucket import ensure_bucket

        if ensure_bucket(arguments.root):
            _say(f"made the bucket of {arguments.root}")
    places = {"CIRFLOW_HOME": arguments.home, "CIRFLOW_HEAVY_POOL": arguments.heavy_pool}
    images = Images(arguments.image, arguments.gpu_image)
    with server_client(os.environ["PREFECT_API_URL"]) as client:
        made = ensure_resources(client, arguments.pool_type, images, arguments.secret)
        for line in made.lines():
            _say(line)
        register_deployments(client, {**os.environ, **places}, _say)
        if arguments.root:
            offer_choices(client, arguments.root, Path(arguments.home))


def _say(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.stack.register",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pool-type", choices=POOL_TYPES, default="process")
    parser.add_argument("--image", default="", help="image of the cpu pool's runs")
    parser.add_argument("--gpu-image", default="", help="image of the gpu pool's runs")
    parser.add_argument("--root", default="", help="root of the tables, with its bucket")
    parser.add_argument("--home", default="/srv/cirflow", help="working directory of the runs")
    parser.add_argument(
        "--heavy-pool", choices=("cpu", "gpu"), default="cpu", help="pool of runs that need a GPU"
    )
    add_secret_argument(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
