"""Settings that all image editors share."""

from __future__ import annotations

from abc import abstractmethod
from typing import Final

from models.engine_settings import EngineSettings
from models.protocols import Fingerprint, Json

NO_EDITOR: Final = (
    "no image editor is named: set editor.model=timbrooks/instruct-pix2pix (`make editor` installs "
    "what it needs), or import pictures that were edited elsewhere (cirflow import pictures) and "
    "set editor.engine=imported and editor.pictures=KEY"
)


class EditorEngine(EngineSettings):
    """An image editor. Its union is `models.editors.settings`."""

    @property
    @abstractmethod
    def lacking(self) -> str:
        """What has to be set or installed before anything can be edited; empty: nothing."""

    @property
    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """Everything that changes a picture."""

    @property
    @abstractmethod
    def making(self) -> dict[str, Json]:
        """How pictures are made, for people and for the manifest of an export."""
