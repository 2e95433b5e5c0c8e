"""Search a gallery with a reference image and a modification text.

The gallery must be ingested and embedded under the same profile
(`cirflow run embed-gallery --set collection=NAME`), for methods other than cvsi with
`--set methods=METHOD`. Nothing is written, Prefect is not started."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path


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
    parser.add_argument("--profile", default="tiny", help="tiny, production or a TOML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument(
        "--include-reference",
        action="store_true",
        help="rank the gallery's copy of the image too",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Search and print the hits."""
    if arguments.k < 1:
        raise ValueError(f"-k must be at least 1, not {arguments.k}")
    image = Path(arguments.image).read_bytes()
    print("loading models", file=sys.stderr)
    from flows.profiles import parse_assignments, resolve_profile
    from models.retrieval.cvsi_settings import SEARCH_FAMILY
    from storage.collections.decoding import ImageProblem
    from storage.tables.table import IncompleteTable
    from tasks.planner import gallery_stages
    from tasks.search_gallery import search_gallery

    profile = resolve_profile(arguments.profile, parse_assignments(arguments.set))
    stages = gallery_stages(profile, arguments.gallery, arguments.method)
    try:
        result = search_gallery(
            profile,
            arguments.gallery,
            stages,
            image,
            arguments.text,
            method=arguments.method,
            family=arguments.family or SEARCH_FAMILY,
            k=arguments.k,
            include_reference=arguments.include_reference,
        )
    except ImageProblem as error:
        raise ValueError(f"{arguments.image}: {error}") from error
    except IncompleteTable as error:
        raise ValueError(
            f"the gallery {arguments.gallery!r} is not embedded under profile {profile.name!r}: "
            f"cirflow run embed-gallery --profile {arguments.profile} --set "
            f"collection={arguments.gallery} --set methods={arguments.method}\n({error})"
        ) from error
    if arguments.json:
        print(json.dumps(asdict(result)))
        return 0
    lacking = result.without_features
    aside = f", {lacking} of them without features" if lacking else ""
    print(f"{result.method}, a gallery of {result.gallery_size} images{aside}")
    if result.captions:
        print(f"caption: {result.captions[0]}")
    if result.edits:
        print(f"edited:  {result.edits[0]}")
    if result.objects:
        print(f"added:   {result.objects}")
    for hit in result.hits:
        print(f"{hit.rank:3}  {hit.score:.4f}  {hit.paths[0]}")
    return 0
