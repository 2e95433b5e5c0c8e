"""Settings of the engine `imported`: texts that others made stand for a model's. Nothing runs."""

from __future__ import annotations

from typing import Literal, NoReturn

from models.engine_settings import EngineSettings
from models.generators.text_settings import TextGeneratorSettings
from models.protocols import EngineUnavailable, Fingerprint


class ImportedEngine(EngineSettings):
    """Texts that `cirflow import texts` stored; a query or image without one is a failed row."""

    engine: Literal["imported"] = "imported"
    texts: str = ""
    """Key of the import, as `cirflow import texts` prints it."""

    @property
    def title(self) -> str:
        """Engine and key."""
        return f"imported texts {self.texts}"

    @property
    def fingerprint(self) -> Fingerprint:
        """The key, which follows from the files' contents and what they were joined to."""
        return {"engine": "imported", "model": self.texts}

    def load(self) -> NoReturn:
        """There is nothing to load.

        Raises:
            EngineUnavailable: Always.
        """
        raise EngineUnavailable(
            f"imported texts ({self.texts}) exist for the queries and images of their benchmark "
            "only; choose an engine that writes texts for what is asked here"
        )


class ImportedCaptions(ImportedEngine):
    """Imported captions."""


class ImportedRewrites(ImportedEngine, TextGeneratorSettings):
    """Imported edits and added objects; they are read as a model's raw replies."""

    engine: Literal["imported"] = "imported"
