"""Settings of the engine `imported`: pictures that were edited elsewhere. Nothing runs."""

from __future__ import annotations

from typing import Literal, NoReturn

from models.editors.engine import EditorEngine
from models.protocols import EngineUnavailable, Fingerprint, Json


class ImportedPictures(EditorEngine):
    """Pictures that `cirflow import pictures` stored; a query without one is a failed row."""

    engine: Literal["imported"] = "imported"
    pictures: str = ""
    """Key of the import, as `cirflow import pictures` prints it."""

    @property
    def title(self) -> str:
        """Engine and key."""
        return f"imported pictures {self.pictures}"

    @property
    def lacking(self) -> str:
        """The key, where it is not set."""
        if self.pictures:
            return ""
        return "set editor.pictures=KEY, which `cirflow import pictures` prints"

    @property
    def fingerprint(self) -> Fingerprint:
        """The key, which follows from the pictures and from what they were edited by."""
        return {"engine": self.engine, "model": self.pictures}

    @property
    def making(self) -> dict[str, Json]:
        """Each picture has its own."""
        return {}

    def load(self) -> NoReturn:
        """There is nothing to load.

        Raises:
            EngineUnavailable: Always.
        """
        raise EngineUnavailable(
            f"imported pictures ({self.pictures}) exist for their own references and texts only; "
            "choose an engine that edits what is asked here"
        )
