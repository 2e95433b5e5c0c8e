"""Checks of trained networks, and of the states of trainings that are not finished."""

from __future__ import annotations

import functools
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath

from storage.checks.findings import Fault, Findings, Listed, fault_in, going_on
from storage.checks.tables import ASIDE
from storage.locations import manifest
from storage.locations.damage import MALFORMED, put_aside
from storage.locations.location import Location
from storage.locations.manifest import Record
from storage.words import agreed

_PUBLISHED = re.compile(r"(checkpoints/[^/]+/[^/.]+)/.+")
_ASIDE_FOLDER = re.compile(r"checkpoints/[^/]+/[^/.]+\.quarantined-\d+/.+")
_TRAIN = "the network is trained again by the next run of its training"
_RESUME = "the training starts from its beginning"


def check_checkpoints(listed: Listed, records: Mapping[str, list[Record]], found: Findings) -> None:
    """Check published networks and states of trainings."""
    for entry in listed.below("checkpoints") + listed.below("training"):
        name = entry.path.rpartition("/")[2]
        if ASIDE.fullmatch(name) or _ASIDE_FOLDER.fullmatch(entry.path):
            found.left_over["put aside"] = found.left_over.get("put aside", 0) + 1
            continue
        if name.startswith(".") and name.endswith(".new"):
            found.left_over["staged"] = found.left_over.get("staged", 0) + 1
            continue
        if _parser(entry.path) is None and entry.path not in records:
            found.others.append(entry.path)
            continue
        found.files += 1
        own = records.get(entry.path, [])
        with going_on(found, entry.path):
            judge = functools.partial(_fault, entry.path, own)
            what = fault_in(listed.location, entry.path, judge)
            published = _PUBLISHED.fullmatch(entry.path)
            if what:
                found.faults.append(_damaged(listed.location, entry.path, what, bool(published)))
            elif published and not own:
                found.unrecorded.append(entry.path)
    for path, own in records.items():
        if not path.startswith("checkpoints/"):
            continue
        with going_on(found, path):
            if not listed.location.exists(path) and any(
                listed.location.exists(record.place) for record in own
            ):
                what = f"it was published ({own[0].size} bytes) and is not there any more"
                found.faults.append(_damaged(listed.location, path, what, published=True))


def _fault(path: str, records: Sequence[Record], data: bytes) -> str:
    if records:
        same = Record.of(path, data) in records
        return "" if same else "its content is not that which was published"
    parse = _parser(path)
    try:
        return parse(data) if parse is not None else ""
    except (*MALFORMED, LookupError, AttributeError) as error:
        return str(error) or type(error).__name__
    except (zipfile.BadZipFile, struct.error, EOFError, NotImplementedError) as error:
        return str(error) or type(error).__name__


def _parser(path: str) -> Callable[[bytes], str] | None:
    return _PARSERS.get(PurePosixPath(path).suffix)


def _json_fault(data: bytes) -> str:
    json.loads(data)
    return ""


def _text_fault(data: bytes) -> str:
    return "it has NUL characters" if "\0" in data.decode() else ""


def _safetensors_fault(data: bytes) -> str:
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    expected = 8 + length + max(ends, default=0)
    size = f"{len(data)} {agreed(len(data), 'byte')}"
    return "" if expected == len(data) else f"{size} instead of {expected}"


def _torch_fault(data: bytes) -> str:
    """A file of torch.save is a zip archive with a checksum for each of its members."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        broken = archive.testzip()
    return f"its member {broken} is damaged" if broken else ""


_PARSERS: Mapping[str, Callable[[bytes], str]] = {
    ".json": _json_fault,
    ".csv": _text_fault,
    ".md": _text_fault,
    ".safetensors": _safetensors_fault,
    ".pt": _torch_fault,
    ".ckpt": _torch_fault,
}


def _damaged(location: Location, path: str, what: str, published: bool) -> Fault:
    if published and path.endswith(".md"):
        return _aside_alone(location, path, what, "nothing: nobody reads it but people")
    if not published:
        return _aside_alone(location, path, what, _RESUME)
    folder = path.rpartition("/")[0]
    match = _PUBLISHED.fullmatch(path)
    folder = match[1] if match else folder

    def mend() -> str:
        number = 1
        while location.list(f"{folder}.quarantined-{number}"):
            number += 1
        for file in location.list(folder):
            location.rename(file, file.replace(folder, f"{folder}.quarantined-{number}", 1))
            manifest.forget(location, file)
        manifest.forget(location, path)
        return f"{folder} is put aside as {folder}.quarantined-{number}; {_TRAIN}"

    repair = "its whole folder is put aside (nothing is deleted)"
    return Fault(
        path, what, f"results of this network are not to be trusted; {_TRAIN}", repair, mend
    )


def _aside_alone(location: Location, path: str, what: str, costs: str) -> Fault:
    def mend() -> str:
        if location.exists(path):
            put_aside(location, path)
        manifest.forget(location, path)
        return f"put aside; it costs {costs}"

    return Fault(path, what, costs, "it is put aside", mend)
