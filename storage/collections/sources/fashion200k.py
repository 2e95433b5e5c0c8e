"""Fashion200k by its label files (Han et al., ICCV 2017): the first source of InstructCIR's pairs.

``labels/{dress,jacket,pants,skirt,top}_{train,test}_detect_all.txt``, three columns with TABs: path
``women/<class>/<style>/<product>/<product>_<n>.jpeg``, score of a detection, description. The
description is not used: the protocol takes images alone. Products have several views each.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

from storage.collections.sources.files import SourceFile
from storage.collections.sources.named import LabelFault, Named
from storage.words import agreed

FOLDERS: Final[Mapping[str, str]] = {
    "dress": "dresses",
    "jacket": "jackets",
    "pants": "pants",
    "skirt": "skirts",
    "top": "tops",
}
"""Meta class, by the names of the label files -> folder below ``women/``."""
CLASSES: Final = tuple(FOLDERS)
SPLITS: Final[Mapping[str, int]] = {"train": 172_049, "test": 29_789}
"""Split -> images that the published label files name, 201,838 in all. InstructCIR's paper counts
280 thousand, which matches neither these nor the list of addresses."""
_LABELS: Final = {f"{c}_{s}_detect_all.txt": (c, s) for c in CLASSES for s in SPLITS}
_PRODUCT: Final = re.compile(
    r"(?:^|[/!])women/[^/]+/[^/]+/(?P<product>\d+)/(?P=product)_\d+\.jpe?g$", re.IGNORECASE
)


def product_of(path: str) -> str | None:
    """The product that an image of Fashion200k shows; None for other paths."""
    found = _PRODUCT.search(path)
    return found["product"] if found else None


def named_images(files: Sequence[SourceFile]) -> tuple[list[Named], list[str]]:
    """The images that the label files name, and notes on their counts.

    Raises:
        LabelFault: label files are missing, or a line has another form.
    """
    labels = {PurePosixPath(f.path).name: f for f in files if _is_label(f.path)}
    if not labels:
        raise LabelFault(
            f"no label file of Fashion200k is here: labels/{CLASSES[0]}_train_detect_all.txt and so"
            " on; give the folder that holds labels/ and women/"
        )
    named: list[Named] = []
    classes: Counter[str] = Counter()
    splits: Counter[str] = Counter()
    odd = 0
    for name in sorted(labels):
        meta_class, split = _LABELS[name]
        paths = dict.fromkeys(_paths(labels[name]))
        named += [Named(path, meta_class, f"labels/{name}") for path in paths]
        classes[meta_class] += len(paths)
        splits[split] += len(paths)
        odd += sum(path.split("/")[1] != FOLDERS[meta_class] for path in paths)
    return named, _notes(sorted(_LABELS.keys() - labels.keys()), classes, splits, odd)


def _is_label(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return len(parts) == 2 and parts[0] == "labels" and parts[1] in _LABELS


def _paths(file: SourceFile) -> list[str]:
    """The first column of a label file, each line checked."""
    try:
        text = file.location.read_bytes(file.raw_path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise LabelFault(f"{file.path} is not UTF-8: {error}") from error
    paths = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.removesuffix("\r")
        if not line:
            continue
        path, *rest = line.split("\t")
        parts = path.split("/")
        if len(rest) != 2 or len(parts) != 5 or parts[0] != "women" or {"", ".", ".."} & {*parts}:
            raise LabelFault(
                f"{file.path}, line {number}: not women/CLASS/STYLE/PRODUCT/FILE, TAB, score, TAB, "
                f"description, but {line[:120]!r}"
            )
        if not _is_number(rest[0]):
            raise LabelFault(f"{file.path}, line {number}: the score {rest[0]!r} is not a number")
        paths.append(path)
    return paths


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _notes(
    absent: Sequence[str], classes: Mapping[str, int], splits: Mapping[str, int], odd: int
) -> list[str]:
    notes = ["meta classes: " + ", ".join(f"{c} {classes.get(c, 0):,}" for c in CLASSES)]
    if absent:
        notes.append(f"label files that are not here: {', '.join(absent)}")
    for split, published in SPLITS.items():
        own = splits.get(split, 0)
        same = "as published" if own == published else f"the published files name {published:,}"
        notes.append(f"{split}: {own:,} {agreed(own, 'image')} named, {same}")
    if odd:
        images, their = agreed(odd, "image lies", "images lie"), agreed(odd, "its", "their")
        notes.append(f"{odd:,} {images} in the folder of another class than {their} label file's")
    return notes
