"""The options that say where tables are, alike in every command."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.settings import Profile


def add_place(parser: argparse.ArgumentParser, assigned: str = "a setting of the profile") -> None:
    """--profile, --set (of `assigned`) and --root."""
    parser.add_argument("--profile", default="tiny", help="tiny, small, production or a TOML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=assigned)
    parser.add_argument(
        "--root", default="", help="root of the tables, a folder or s3://; default: the profile's"
    )


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The values of --set, with that of --root on top."""
    from flows.profiles import parse_assignments

    given = parse_assignments(arguments.set)
    return given | ({"root": arguments.root} if arguments.root else {})


def profile_of(arguments: argparse.Namespace) -> Profile:
    """The profile that the options name.

    Raises:
        ProfileError: an unknown profile or setting, or a value that does not fit.
    """
    from flows.profiles import resolve_profile

    return resolve_profile(arguments.profile, given_settings(arguments))


def reachable_root(arguments: argparse.Namespace) -> str:
    """The root that the options name, for commands that only read it.

    Raises:
        ProfileError: as `profile_of`.
        LocationError: it lies on S3, and credentials are missing or a server does not answer.
    """
    from storage.locations.access import require_reachable
    from storage.locations.location import Location

    root = profile_of(arguments).root
    require_reachable(Location(root))
    return root


def set_words(*given: str) -> list[str]:
    """Options that give settings (NAME=VALUE) to another command, as a person types them."""
    return [word for each in given for word in ("--set", each)]


def place_words(arguments: argparse.Namespace) -> list[str]:
    """The options as words of another command."""
    words = ["--profile", arguments.profile, *set_words(*arguments.set)]
    return words + (["--root", arguments.root] if arguments.root else [])


def score_command(arguments: argparse.Namespace, methods: Sequence[str]) -> str:
    """The command that ranks a benchmark (--benchmark, --folder, --split) by some methods."""
    own = (f"{name}={getattr(arguments, name)}" for name in ("benchmark", "folder", "split"))
    asked = set_words(*own, f"methods={','.join(methods)}")
    return shlex.join(["cirflow", "run", "score-benchmark", *asked, *place_words(arguments)])


def embed_command(gallery: str, method: str, place: Sequence[str]) -> str:
    """The command that makes the features of a gallery that a method weighs."""
    asked = set_words(f"collection={gallery}", f"methods={method}")
    return shlex.join(["cirflow", "run", "embed-gallery", *asked, *place])
