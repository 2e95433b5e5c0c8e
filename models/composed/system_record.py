"""A composed query encoder by its record: what is set, built, rebuilt and loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.published_files import require_weights
from models.settings import Settings
from models.training.settings import ComposedTraining

if TYPE_CHECKING:
    from models.composed.network import ComposedNetwork
    from models.encoders.spec import EncoderSpec


@dataclass(frozen=True, kw_only=True)
class ComposedSystem:
    """One system. Its functions import torch when they are called, not before.

    Attributes:
        name: On the command line, in profiles and folders.
        title: In words.
        settings: Of the network and its loss.
        build: A new network on a backbone: (backbone, settings, seed); None where it starts from
            another system.
        continued: A network on a trained one that it starts from and takes over: (network,
            settings, seed).
        rebuild: A network without weights from its `architecture` and the folder of its files.
        published: A network from a published checkpoint: (file or folder, settings); it raises
            CheckpointError for every missing, unknown or misshapen weight. None: no such form.
        require_published: Refuses a file or folder that is not of that form, by names and by how
            files begin; torch is not imported for it.
        training: The defaults of its training.
        starts_from: The system whose trained folder its own training starts from, or may start from
            where it has `build` too; empty: none.
        goes_on: Whether its training may start from a trained one of its own, too.
    """

    name: str
    title: str
    settings: type[Settings]
    rebuild: Callable[[Mapping[str, Any], Path], ComposedNetwork]
    build: Callable[[EncoderSpec, Any, int], ComposedNetwork] | None = None
    continued: Callable[[Any, Any, int], ComposedNetwork] | None = None
    published: Callable[[Path, Any], ComposedNetwork] | None = None
    require_published: Callable[[Path], object] = require_weights
    training: ComposedTraining = field(default_factory=ComposedTraining)
    starts_from: str = ""
    goes_on: bool = False
