"""What people call a backbone that is a folder: the folder's name, and a short hash of its weights.

Its identity is `local HASH`, in specs and in the ledger's rows: the same weights elsewhere are the
same backbone. What the folder was called is noted beside, for tables and pages alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.encoders.spec import EncoderSpec

Folders = Mapping[str, str]
"""Name by content (`local HASH`) -> what its folder was called."""


def folders_of(*specs: EncoderSpec) -> dict[str, str]:
    """What the folders of some backbones are called; the others are not in it."""
    from tasks.engines import backbone_name  # who only reads the ledger needs no engines

    return {
        backbone_name(spec): re.sub(r"[^\w.+-]+", "-", spec.directory.resolve().name)
        for spec in specs
        if spec.directory is not None
    }


def recognised(backbone: str, folders: Folders) -> str:
    """A name for people: `local 3f2a9c1d + reformulation` -> `clip 3f2a9c1d + reformulation`."""
    for own, folder in folders.items():
        if folder:
            backbone = backbone.replace(own, own.replace("local", folder, 1))
    return backbone


def recognised_name(spec: EncoderSpec) -> str:
    """A name for people of one backbone."""
    from tasks.engines import backbone_name

    return recognised(backbone_name(spec), folders_of(spec))
