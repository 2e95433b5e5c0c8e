"""Names of backbones that are folders, for people: the folder's name and a hash of its weights.

Their identity is `local HASH`, in specs and in the ledger's rows: the same weights elsewhere are
the same backbone. The folder's name is noted next to it, for tables and pages alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.encoders.spec import EncoderSpec

Folders = Mapping[str, str]
"""Name by content (`local HASH`) -> name of its folder."""


def folders_of(*specs: EncoderSpec) -> dict[str, str]:
    """The folders' names of those backbones that are folders; hub models are left out."""
    from tasks.engines import backbone_name  # readers of the ledger need no engines

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
