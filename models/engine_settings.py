"""Settings that all engines share. An engine's settings name it, identify it and load it.

A captioner or a text generator is one file: settings with a name of its own (`engine`), a
`fingerprint` that is read from files, and `load()`. Importing the file imports no framework. The
unions of them are `models.captioners.settings` and `models.generators.settings`.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, get_args

from pydantic_core import to_jsonable_python

from models.checkpoints import (
    CONFIG_FILE,
    TOKENIZER,
    checkpoint_identity,
    files_are_here,
    identity_files,
    model_name,
    require_files,
    require_kind,
)
from models.devices import require_device, torch_dtype_name
from models.protocols import AutoDtype, DeviceName, Fingerprint
from models.settings import Settings
from models.spelling import unknown

logger = logging.getLogger(__name__)


class EngineSettings(Settings):
    """The engine that runs, and where it runs."""

    engine: str
    """Name of the engine."""

    @property
    def title(self) -> str:
        """A few words for people."""
        return self.engine

    @property
    def picture_side(self) -> int | None:
        """Pixels of the shorter side that suffice for the engine, which makes pictures smaller.

        None: it sends or reads them whole, or reads none.
        """
        return None

    def is_here(self) -> bool:
        """Whether the engine's files are on this machine; where not, a hub that answers has them.

        No framework is imported and no weight is read. An engine without files has them all.

        Raises:
            ValueError: Files are missing, or another engine's.
        """
        return True

    def require_host(self) -> None:
        """Refuse an engine whose device, or server, is not there; no framework is imported.

        Raises:
            ValueError: There is no such device, or no address.
            EngineUnavailable: The server cannot be used.
        """


class CheckpointSettings(EngineSettings):
    """A checkpoint that runs in this process."""

    MODEL_TYPES: ClassVar[Sequence[str]] = ()
    """`model_type` of the checkpoints that the engine takes; none: any."""
    ARCHITECTURES: ClassVar[Sequence[str]] = ()
    """Endings of the `architectures` that the engine takes; none: any."""
    NEEDED_FILES: ClassVar[Sequence[Sequence[str]]] = (TOKENIZER,)
    """For each thing that a checkpoint must bring, the names of which one must be there."""

    model: str
    """Directory or hub id."""
    revision: str = ""
    """Hub revision; ignored for a directory."""
    device: DeviceName = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    dtype: AutoDtype = "auto"
    """auto is bf16 on a GPU and fp32 elsewhere."""

    @property
    def title(self) -> str:
        """Engine and checkpoint."""
        return f"{self.engine} {self.model.rstrip('/').rpartition('/')[2]}"

    def check(self) -> None:
        """Compare the files of a checkpoint on disk with what the engine needs; no weight is read.

        Engines that can compare the weights' names and shapes too do so.

        Raises:
            UnusableCheckpoint: Something is missing or does not fit.
        """
        self.files(lambda: None)

    def files(self, fetch: Callable[[], object]) -> Mapping[str, str]:
        """File name -> sha256 of the checkpoint's files.

        Args:
            fetch: Brings the files of a hub id to this machine.

        Raises:
            UnusableCheckpoint: Files are missing, or the checkpoint is another engine's.
        """
        if not self.is_here():
            fetch()
        found = checkpoint_identity(self.model, self.revision)
        self.require_fit(found)
        return found

    def is_here(self) -> bool:
        """Whether the checkpoint is on this machine; its files are looked at by name alone."""
        return files_are_here(
            self.model,
            self.revision,
            lambda folder: self.require_fit(identity_files(self.model, folder)),
        )

    def require_host(self) -> None:
        """Refuse a device that is not there."""
        require_device(self.device)

    def require_fit(self, files: Iterable[str]) -> None:
        """Refuse files that lack one that the engine needs, or are another engine's.

        Args:
            files: Their names.

        Raises:
            UnusableCheckpoint: Saying which.
        """
        names = list(files)
        require_files(self.model, names, [(CONFIG_FILE,)])
        require_kind(self.model, self.revision, self.MODEL_TYPES, self.ARCHITECTURES)
        require_files(self.model, names, self.NEEDED_FILES)

    def contents(self, engine: str, version: int, fetch: Callable[[], object]) -> Fingerprint:
        """What the fingerprint of each engine in this process says of a checkpoint.

        Args:
            engine: Name of the engine in identities.
            version: Of the engine's code.
            fetch: Brings the files of a hub id to this machine.

        Raises:
            UnusableCheckpoint: Files are missing, or the checkpoint is another engine's.
        """
        files = self.files(fetch)
        return {
            "engine": engine,
            "engine_version": importlib.metadata.version("transformers"),
            "version": version,
            "model": model_name(self.model, files),
            "files": dict(files),
            "dtype": self.dtype_name,
        }

    @property
    def dtype_name(self) -> str:
        """Torch's name of the precision, as identities hold it."""
        return torch_dtype_name(self.dtype, self.device)


def engine_kinds(union: Any) -> dict[str, type[EngineSettings]]:
    """Name of an engine -> its settings, for a union of them (annotated or bare)."""
    kinds = get_args(union)
    if kinds and get_args(kinds[0]):  # Annotated[A | B, ...]
        kinds = get_args(kinds[0])
    return {kind.model_fields["engine"].default: kind for kind in kinds}


def switched(
    union: Any, values: Mapping[str, Any], changes: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values before the changes: the present engine's, or another's if the changes name it.

    Settings that both engines have keep their values; the new engine's others have their defaults.
    A change of a setting that only other engines have is dropped with a warning: one profile may
    hold the settings of several engines.

    Args:
        union: The engines to choose from.
        values: Values of the present engine.
        changes: Single values to replace.
        where: Name of the group, for messages.

    Returns:
        All values of the engine before the changes, None for one that has no default; and the
        changes that concern it.

    Raises:
        ValueError: An unknown engine.
    """
    kinds = engine_kinds(union)
    name = changes.get("engine", values["engine"])
    if name not in kinds:
        raise ValueError(unknown(f"{where}.engine", str(name), kinds))
    fields = kinds[name].model_fields
    own = dict(changes)
    for field in changes:
        owners = [other for other, kind in kinds.items() if field in kind.model_fields]
        if field not in fields and owners:
            del own[field]
            logger.warning(
                "%s.%s is ignored: it is a setting of %s, and %s.engine is %s",
                *(where, field, " and ".join(owners), where, name),
            )
    defaults = {
        field: None if info.is_required() else to_jsonable_python(info.default)
        for field, info in fields.items()
    }
    before = {field: values.get(field, default) for field, default in defaults.items()}
    return before | {"engine": name}, own
