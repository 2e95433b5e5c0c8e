"""NLVR2 by its JSON files (Suhr et al., ACL 2019): the second source of InstructCIR's pairs.

``data/{train,dev,test1,test2}.json`` are JSON lines. An identifier is ``split-set-pair-sentence``;
its two images are ``split-set-pair-img0.png`` and ``-img1.png``, wherever they lie below the folder
(``images/train/<directory>/``, ``dev/``, ``test1/``). A set is eight images of one search. CIRR's
images are images of NLVR2 and have their names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

from storage.collections.sources.files import SourceFile
from storage.collections.sources.named import LabelFault, Named
from storage.words import agreed

PUBLISHED: Final[Mapping[str, tuple[int, int]]] = {
    "dev": (6_982, 8_102),
    "test1": (6_967, 8_082),
    "test2": (6_970, 8_148),
}
"""Split -> lines and images of the published files."""
_DATA: Final = {f"{split}.json": split for split in ("train", *PUBLISHED)}
_PAIR: Final = re.compile(r"(?P<pair>(?P<split>train|dev|test1|test2)-\d+-\d+)-\d+")
_IMAGE: Final = re.compile(r"(?P<set>(?:train|dev|test1|test2)-\d+)-\d+-img[01]")


def set_of(stem: str) -> str | None:
    """The set of eight that an image belongs to by its name without ending; None for others."""
    found = _IMAGE.fullmatch(stem)
    return found["set"] if found else None


def named_images(files: Sequence[SourceFile]) -> tuple[list[Named], list[str]]:
    """The images that the JSON files name, in one class, and notes on their counts.

    Raises:
        LabelFault: the label files are missing, or belong to another corpus.
    """
    places = {PurePosixPath(file.raw_path).name: file.raw_path for file in reversed(files)}
    data = [file for file in files if _is_data(file.path)]
    if not data:
        raise LabelFault(
            "no file of NLVR2 is here: data/train.json, data/dev.json and so on; give the folder "
            "that holds data/ and the images"
        )
    named: list[Named] = []
    notes = []
    for file in data:
        split = _DATA[PurePosixPath(file.path).name]
        records = list(_records(file, split))
        own = dict(pair for record in records for pair in _images(record, split))
        named += [Named(places.get(n, expected), "", file.path) for n, expected in own.items()]
        notes.append(_note(split, len(records), len(own)))
    return named, notes


def _is_data(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return len(parts) == 2 and parts[0] == "data" and parts[1] in _DATA


def _records(file: SourceFile, split: str) -> list[dict[str, Any]]:
    """The lines of a file, each checked."""
    records = []
    for number, line in enumerate(file.location.read_bytes(file.raw_path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{file.path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise LabelFault(f"{where}: NLVR2's files are JSON lines; {error}") from error
        if isinstance(record, dict) and "structured_rep" in record:
            raise LabelFault(
                f"{where}: this is NLVR (2017, drawings of shapes), another corpus; InstructCIR's "
                "source is NLVR2 (photographs)"
            )
        said = record.get("identifier") if isinstance(record, dict) else None
        found = _PAIR.fullmatch(said) if isinstance(said, str) else None
        if found is None or found["split"] != split:
            raise LabelFault(f"{where}: no identifier {split}-SET-PAIR-SENTENCE, but {said!r}")
        records.append({**record, "pair": found["pair"]})
    return records


def _images(record: Mapping[str, Any], split: str) -> list[tuple[str, str]]:
    """Name and expected path of both images of a line."""
    folder = f"images/train/{record.get('directory', 0)}" if split == "train" else split
    names = [f"{record['pair']}-img{side}.png" for side in (0, 1)]
    return [(name, f"{folder}/{name}") for name in names]


def _note(split: str, lines: int, images: int) -> str:
    named = f"{images:,} {agreed(images, 'image')}"
    text = f"{split}: {lines:,} {agreed(lines, 'line names', 'lines name')} {named}"
    if split not in PUBLISHED:
        return text
    if PUBLISHED[split] == (lines, images):
        return f"{text}, as published"
    return f"{text}; the published file has {PUBLISHED[split][0]:,} and {PUBLISHED[split][1]:,}"
