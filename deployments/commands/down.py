"""Stop the server, the service and the workers that `cirflow up` started in this folder, and
nothing else.

Runs in progress end; their finished shards are published, and a new run resumes there. The server's
state stays."""

from __future__ import annotations

import argparse
from pathlib import Path

from deployments.display import console
from deployments.stack.settings import StackSettings
from deployments.stack.stack import stop


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--folder", type=Path, default=Path("."), help="as given to `cirflow up`")


def run(arguments: argparse.Namespace) -> int:
    """Stop the running processes."""
    stack = StackSettings(folder=arguments.folder.resolve())
    if not stop(stack, lambda line: console.print(line, highlight=False)):
        console.print(f"nothing that was started in {stack.folder} is running", highlight=False)
    return 0
