"""See something in the first minute: a folder of pictures becomes a collection, its image features
are made, and a page opens on which pictures and texts search it. Captions follow in the
background; the page shows how far they are, and methods that need them switch on by themselves.

  cirflow try ~/photos
  cirflow try ~/photos --profile small         real models; `cirflow doctor --profile small` first

A repetition reads new pictures only and goes on where the last one stopped. Ctrl-C stops both; what
is made stays. `cirflow serve` opens the page again, `cirflow run embed-gallery` makes the rest."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deployments.display import console, stage_display
from deployments.errors import UserError
from deployments.place import add_place, given_settings, profile_of, set_words

AT_ONCE = "image-text-sum"
"""The method that needs image features alone."""
LATER = ("cvsi", "instructcir")
"""Methods whose features are made in the background, where they run."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("source", help="folder of pictures, or whatever `cirflow ingest` reads")
    parser.add_argument("--name", default="", help="name of the collection; default: the folder's")
    parser.add_argument("--port", type=int, default=8600, help="port of the page")
    parser.add_argument("--no-captions", action="store_true", help="leave the captions for later")
    add_place(parser)


def run(arguments: argparse.Namespace) -> int:
    """Ingest, make image features, open the page; captions go on beside it."""
    from deployments.commands.serve import require_free

    began = time.monotonic()
    require_free("127.0.0.1", arguments.port)
    profile = profile_of(arguments)
    name = arguments.name or name_of(arguments.source)
    from deployments.commands import ingest
    from flows.requests.checks import require_methods

    require_methods(profile, [AT_ONCE])
    from storage.collections.first_picture import require_a_picture
    from storage.locations.location import Location
    from tasks.stages.stage import require_hosts

    require_a_picture(Location(profile.root), arguments.source)
    from tasks.planner import gallery_stages

    for stage in gallery_stages(profile, name, AT_ONCE).values():
        require_hosts(stage)
    status = ingest.run(
        argparse.Namespace(
            **{**vars(arguments), "name": name},
            class_field="meta_class",
            layout="files",
            if_taken="refuse",
        )
    )
    if status:
        return status
    from tasks.foreign_pictures import warning_for

    if warning := warning_for(profile, name):
        _say(f"\n{warning}\n")
    from flows.first_look import fill

    fill(list(gallery_stages(profile, name, AT_ONCE).values()), stage_display)
    _say(f"ready for searches after {time.monotonic() - began:.0f} s")
    with captioning(arguments, name) as fault_of:
        _say(f"open http://127.0.0.1:{arguments.port}/progress/{name} for what is still made")
        return _serve(arguments, fault_of)


def name_of(source: str) -> str:
    """A collection's name from that of a folder or file.

    Raises:
        UserError: none of its characters can be in a name.
    """
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(source).expanduser().resolve().name)
    name = plain.lstrip("-._")
    if not name:
        raise UserError(f"{source} gives no name for a collection; give one: --name NAME")
    return name


def rest_of(arguments: argparse.Namespace, name: str) -> list[str]:
    """The command that makes captions and the features that are made of them."""
    from tasks.methods import why_not_ready

    profile = profile_of(arguments)
    methods = ",".join(each for each in LATER if not why_not_ready(each, profile))
    settings = (f"{key}={value}" for key, value in given_settings(arguments).items())
    return [
        *("run", "embed-gallery", "--profile", arguments.profile),
        *set_words(f"collection={name}", f"methods={methods}", *settings),
    ]


@contextmanager
def captioning(arguments: argparse.Namespace, name: str) -> Iterator[Callable[[str], str]]:
    """Captions in the background, in a process of their own that gives way to searches.

    Yields:
        What went wrong with the captions of a gallery; empty where nothing did.
    """
    command = rest_of(arguments, name)
    if arguments.no_captions:
        _say(f"captions: cirflow {shlex.join(command)}")
        yield lambda gallery: ""
        return
    log = _log_of(arguments, name)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as said:
        beside = subprocess.Popen(
            [sys.executable, "-m", "deployments.cli", *command],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    os.setpriority(os.PRIO_PROCESS, beside.pid, 10)
    _say(f"captions are made beside it; log: {log}")
    stopping = threading.Event()

    def fault_of(gallery: str) -> str:
        if gallery != name or not (status := beside.poll()):
            return ""
        return f"captions ended with status {status}, see {log}; cirflow {shlex.join(command)}"

    def tell() -> None:
        beside.wait()
        if (fault := fault_of(name)) and not stopping.is_set():
            _say(fault)

    threading.Thread(target=tell, daemon=True).start()
    try:
        yield fault_of
    finally:
        stopping.set()
        if beside.poll() is None:
            beside.terminate()
            beside.wait()
            _say(f"captions stopped; go on with: cirflow {shlex.join(command)}")


def _log_of(arguments: argparse.Namespace, name: str) -> Path:
    """File of what the captions' process says: in the root, or beside the work where that is S3."""
    from storage.locations.location import Location

    root = Location(profile_of(arguments).root)
    return Path(root.root if root.is_local else ".cirflow") / f"try-{name}.log"


def _serve(arguments: argparse.Namespace, fault_of: Callable[[str], str]) -> int:
    from deployments.commands import serve

    given = {**vars(arguments), "name": []}
    told = argparse.Namespace(**given, host="127.0.0.1", origin="", cold=False)
    return serve.run(told, fault_of)


def _say(line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
