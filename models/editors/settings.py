"""The image editors to choose from. Another one is a file and a member of this union."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from models.editors.imported import ImportedPictures
from models.editors.instruct_pix2pix import InstructPix2PixSettings

EditorSettings: TypeAlias = Annotated[
    InstructPix2PixSettings | ImportedPictures, Field(discriminator="engine")
]
"""Which image editor runs, and where."""
