"""Search a gallery with a reference image and a modification text.

The gallery must be ingested and embedded under the same profile
(`cirflow run embed-gallery --set collection=NAME`), for methods other than cvsi with
`--set methods=METHOD`. Prefect is not started. What is written is derived and made again when it
is missing: a mapped matrix of each feature, next to its table or in the user's cache folder, and
above `--set search.approximate_above=IMAGES` an index whose candidates exact scores rank."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.errors import UserError
from deployments.place import add_place, embed_command, place_words, profile_of
from models.plain_text import escaped_line
from models.spelling import agreed, unknown

if TYPE_CHECKING:
    from models.retrieval.contributions import Weights
    from tasks.settings import Profile


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--gallery", required=True, help="name of a collection")
    parser.add_argument("--image", required=True, help="reference image file")
    parser.add_argument("--text", required=True, help="modification text")
    parser.add_argument("-k", type=int, default=10, help="how many images to show")
    parser.add_argument("--method", default="cvsi", help="a method of `cirflow methods`")
    parser.add_argument(
        "--family",
        "--style",
        default="",
        help="benchmark family whose prompts and weights are used",
    )
    parser.add_argument(
        "--weight",
        action="append",
        default=[],
        metavar="SIDE.FEATURE=NUMBER",
        help="a weight in place of the method's own, as query.reference_image=0.2 or "
        "gallery.captions=0.5; may be repeated",
    )
    add_place(parser)
    parser.add_argument(
        "--include-reference",
        action="store_true",
        help="rank the gallery's copy of the image too",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Search and print the hits."""
    # Threads of torch that wait for work sleep: on a busy machine their spinning doubles the time.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with uncollected():
        return searched(arguments)


@contextmanager
def uncollected() -> Iterator[None]:
    """Without garbage collection: it walks over what imports make, a sixth of a cold search.

    What the search made is frozen at its end, since a first collection would walk over all of it.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.freeze()
            gc.enable()


def searched(arguments: argparse.Namespace) -> int:
    """Search and print the hits."""
    from storage.locations.access import require_reachable
    from storage.locations.location import Location

    image = checked_image(arguments)
    profile = profile_of(arguments)
    require_reachable(Location(profile.root))
    family = checked_family(arguments, profile)
    weights = given_weights(arguments.weight)
    require_embedded(arguments, profile)
    from tasks.foreign_pictures import warning_for
    from tasks.search_request import require_search

    require_search(profile, arguments.gallery, arguments.method, family, weights)
    if warning := warning_for(profile, arguments.gallery):
        print(warning, file=sys.stderr)
    print("loading models", file=sys.stderr)
    from tasks.planner import gallery_stages
    from tasks.search_gallery import search_gallery

    result = search_gallery(
        profile,
        arguments.gallery,
        gallery_stages(profile, arguments.gallery, arguments.method),
        image,
        arguments.text,
        method=arguments.method,
        family=family,
        k=arguments.k,
        include_reference=arguments.include_reference,
        weights=weights,
    )
    if arguments.json:
        print(json.dumps(asdict(result)))
        return 0
    lacking = result.without_features
    aside = f", {lacking} of them without features" if lacking else ""
    size = result.gallery_size
    print(f"{result.method}, a gallery of {size} {agreed(size, 'image')}{aside}")
    if near := result.approximate:
        print(
            f"approximate: {near.recall:.1%} of the exact best {near.at} were found for "
            f"{near.queries} {agreed(near.queries, 'image')} of the gallery "
            f"({near.lists} of {near.of} {agreed(near.of, 'list')})"
        )
    if result.captions:
        print(escaped_line(f"caption: {result.captions[0]}"))
    if result.edits:
        print(escaped_line(f"edited:  {result.edits[0]}"))
    if result.objects:
        print(escaped_line(f"added:   {result.objects}"))
    for hit in result.hits:
        said = "" if hit.verdict is None else f"  verifier {hit.verdict:.2f}"
        print(escaped_line(f"{hit.rank:3}  {hit.score:.4f}{said}  {hit.paths[0]}"))
    return 0


def checked_image(arguments: argparse.Namespace) -> bytes:
    """The reference image's bytes.

    Raises:
        UserError: it is not an image, the text is missing, or fewer than one image is to be shown.
    """
    from storage.collections.decoding import ImageProblem, inspect_image

    if arguments.k < 1:
        raise UserError(f"-k must be at least 1, not {arguments.k}")
    if not arguments.text.strip():
        raise UserError("--text is empty; say how the image you look for differs")
    image = Path(arguments.image).read_bytes()
    try:
        inspect_image(image)
    except ImageProblem as error:
        raise UserError(f"{arguments.image} is not an image that can be read: {error}") from error
    return image


def given_weights(given: list[str]) -> Weights:
    """The weights of `--weight`.

    Raises:
        UserError: one is not SIDE.FEATURE=NUMBER.
    """
    from models.retrieval.contributions import Weights

    sides: dict[str, dict[str, float]] = {"query": {}, "gallery": {}}
    for each in given:
        name, _, number = each.partition("=")
        side, _, feature = name.partition(".")
        try:
            sides[side][feature] = float(number)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"--weight {each} is not query.FEATURE=NUMBER or gallery.FEATURE=NUMBER; "
                "`cirflow methods --json` lists the features of each method"
            ) from error
    return Weights(sides["query"], sides["gallery"])


def checked_family(arguments: argparse.Namespace, profile: Profile) -> str:
    """The benchmark family whose prompts and weights are used.

    Raises:
        UserError: an unknown one.
        ValueError: the method does not run under the profile, or lacks something.
    """
    from flows.requests.checks import require_methods
    from models.retrieval.cvsi_settings import SEARCH_FAMILY

    family = arguments.family or SEARCH_FAMILY
    if family not in profile.cvsi.weights:
        raise UserError(unknown("family", family, profile.cvsi.weights))
    require_methods(profile, [arguments.method], [family])
    return str(family)


def require_embedded(arguments: argparse.Namespace, profile: Profile) -> None:
    """Refuse a gallery that was not embedded; no model is loaded.

    Raises:
        UnknownCollection: no collection has the name.
        UserError: features of the method are missing; the message holds the command.
    """
    from flows.requests.checks import require_collections

    require_collections(profile.root, [arguments.gallery])
    from storage.tables.plans import IncompleteTable
    from storage.tables.table import require_complete
    from tasks.planner import gallery_stages

    try:
        for stage in gallery_stages(profile, arguments.gallery, arguments.method).values():
            require_complete(stage.existing_table(), stage.planned_keys(), profile.allow_gaps)
    except IncompleteTable as error:
        command = embed_command(arguments.gallery, arguments.method, place_words(arguments))
        raise UserError(
            f"the gallery {arguments.gallery!r} is not embedded under profile {profile.name!r}: "
            f"{command}\n({error})"
        ) from error
