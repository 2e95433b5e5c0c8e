"""The files of a checkpoint and their hashes: the identity in every fingerprint.

A checkpoint is a local directory or a Hugging Face hub id; both are loaded by the same code.
Identity comes from the contents of the files that change a model's output, never from a path.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from models.hub import HubUnreachable, hub_fault, require_hub
from models.user_cache import recall, remember

_IDENTITY_SUFFIXES: Final = (
    *(".safetensors", ".bin", ".json", ".jinja", ".txt", ".model", ".gz"),
    *(".bpe", ".vocab", ".tiktoken"),
)
"""Names of files that loaders of models, tokenizers and processors read end like this."""
_NOT_IDENTITY: Final = ("recipe.json", "trainer_state.json", "requirements.txt")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")

HASHES: Final = "file-hashes"
"""The kind of fact that these are in `models.user_cache`."""

_REMEMBERED_FROM: Final = 2**20
"""Bytes from which a file's hash is remembered; a smaller file is hashed as fast as recalled."""

_SETTLED_SECONDS: Final = 2.0
"""A file that was touched within this time may change again under the same time stamp (FAT counts
in steps of two seconds): its hash is not remembered yet."""


_POINTER: Final = b"version https://git-lfs.github.com/spec/"
CONFIG_FILE: Final = "config.json"
TOKENIZER: Final = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
"""Files of which one holds a tokenizer."""
ADAPTER: Final = (
    ("adapter_config.json",),
    ("adapter_model.safetensors", "adapter_model.bin"),
)
"""Files of an adapter of peft, of each line one; it prefers the first."""
_WEIGHTS: Final = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""Weights and index of shards in the order in which transformers (or diffusers) looks for them."""
PROCESSOR: Final = ("processor_config.json", "preprocessor_config.json")
"""Files of which one says how images are prepared."""


class UnusableCheckpoint(ValueError):
    """A checkpoint lacks files or weights, or is another engine's."""


class IncompleteCheckpoint(UnusableCheckpoint):
    """A checkpoint lacks files; of a hub's, a part alone may have been fetched."""


def loading_arguments(model: str, revision: str | None = None) -> dict[str, Any]:
    """Arguments of `from_pretrained` that keep a local directory offline and a hub id pinned.

    A bar is shown for weights that are fetched; a checkpoint on disk needs none.
    """
    from transformers.utils import logging

    if Path(model).is_dir():
        logging.disable_progress_bar()
        return {"local_files_only": True}
    logging.enable_progress_bar()
    return {"revision": revision} if revision else {}


def refuse_pointer(path: Path) -> None:
    """Refuse the short text that stands for a file in a Git repository with large files.

    Raises:
        UnusableCheckpoint: It is one.
    """
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise UnusableCheckpoint(
                f"{path} is the pointer of Git LFS and not the file itself; fetch that one "
                "(`git lfs pull`, or the download of its page)"
            )


def checkpoint_folder(model: str, revision: str | None = None) -> Path:
    """The folder of a checkpoint's files on this machine.

    Args:
        model: Directory or hub id.
        revision: Hub revision; ignored for a directory.

    Raises:
        LocalEntryNotFoundError: The hub's files are not on this machine yet.
        UnusableCheckpoint: The name is a directory's, which does not exist.
    """
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(model, revision=revision or None, local_files_only=True))
    except HFValidationError as error:
        raise UnusableCheckpoint(
            f"{model!r} is neither a directory ({Path(model).absolute()}) nor a hub id "
            "(ORGANISATION/NAME)"
        ) from error


def other_files(folder: Path) -> dict[str, str]:
    """File name -> sha256 of the files next to the weights that loaders may read."""
    return {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name.endswith(_IDENTITY_SUFFIXES)
        if not path.name.endswith((".safetensors", ".bin")) and path.name not in _NOT_IDENTITY
    }


def require_files(model: str, files: Iterable[str], needed: Sequence[Sequence[str]]) -> None:
    """Refuse a checkpoint that lacks a file, before anything is loaded.

    Args:
        model: Directory or hub id.
        files: Names of its files.
        needed: For each thing that is needed, the names of which one must be there.

    Raises:
        IncompleteCheckpoint: Saying what is missing.
    """
    names = set(files)
    for choices in needed:
        if not names & set(choices):
            raise IncompleteCheckpoint(
                f"{model!r} lacks {' or '.join(choices)}; copy the files that are published with "
                "the weights into its folder"
            )


def require_kind(
    model: str, revision: str, model_types: Sequence[str], architectures: Sequence[str]
) -> None:
    """Refuse a checkpoint whose configuration is of another kind, before anything is loaded.

    Args:
        model: Directory or hub id.
        revision: Hub revision.
        model_types: Its `model_type` must be one of these; none: any.
        architectures: One of its `architectures`, where it states some, must end like one of
            these; none: any.

    Raises:
        UnusableCheckpoint: Saying of what kind it is.
    """
    try:
        config = json.loads((checkpoint_folder(model, revision) / CONFIG_FILE).read_bytes())
        found, stated = config.get("model_type"), config.get("architectures") or ()
        fits = not stated or any(str(name).endswith(tuple(architectures)) for name in stated)
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UnusableCheckpoint(f"{model!r}: {CONFIG_FILE} cannot be read: {error}") from error
    if model_types and found not in model_types:
        raise UnusableCheckpoint(
            f"{model!r} is a checkpoint of {found}, and this engine takes "
            f"{' or '.join(model_types)}; name such a checkpoint, or another engine"
        )
    if architectures and not fits:
        raise UnusableCheckpoint(
            f"{model!r} is a checkpoint of {' and '.join(map(str, stated))}, and this engine takes "
            f"those of ...{' or ...'.join(architectures)}; name such a checkpoint"
        )


def checkpoint_identity(model: str, revision: str | None = None) -> Mapping[str, str]:
    """File name -> sha256 of every file of a checkpoint that can change the model's output.

    Args:
        model: Directory or hub id.
        revision: Hub revision; ignored for a directory.

    Raises:
        LocalEntryNotFoundError: The hub's files are not on this machine yet.
        ValueError: When there is no such checkpoint, or it holds no weights.
    """
    folder = checkpoint_folder(model, revision)
    names = identity_files(model, folder)
    return {name: file_sha256(folder / name) for name in names}


def identity_files(model: str, folder: Path) -> list[str]:
    """Names of the files in a checkpoint's folder that can change the model's output; none is read.

    Args:
        model: Directory or hub id, for the message.
        folder: Of its files.

    Raises:
        IncompleteCheckpoint: It holds no weights, or lacks a shard of them.
        UnusableCheckpoint: The index of its shards cannot be read.
    """
    files = [
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name.endswith(_IDENTITY_SUFFIXES)
        if path.name not in _NOT_IDENTITY
    ]
    if not any(name.endswith((".safetensors", ".bin")) for name in files):
        raise IncompleteCheckpoint(
            f"{model!r} holds no weights (*.safetensors or *.bin); give the directory of a saved "
            "checkpoint or a Hugging Face hub id"
        )
    try:
        shards = [(file.name,) for file in weight_files(folder)]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UnusableCheckpoint(
            f"{model!r} cannot be loaded: the index of its weights cannot be read: {error}"
        ) from error
    require_files(model, files, shards)
    return files


def weight_files(folder: Path) -> list[Path]:
    """The files of weights that transformers (or diffusers) reads in a folder, there or not."""
    for whole, index in _WEIGHTS:
        if (folder / whole).is_file():
            return [folder / whole]
        if (folder / index).is_file():
            shards = json.loads((folder / index).read_bytes())["weight_map"].values()
            return [folder / name for name in sorted(set(shards))]
    return []


def folder_here(model: str, revision: str | None = None) -> Path | None:
    """The folder of a checkpoint's files on this machine; None where a hub that answers has them.

    Args:
        model: Directory or hub id.
        revision: Hub revision; ignored for a directory.

    Raises:
        UnusableCheckpoint: The folder does not exist, and nothing can be fetched.
    """
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return checkpoint_folder(model, revision)
    except LocalEntryNotFoundError:
        try:
            require_hub(model, revision or "")
        except HubUnreachable as error:
            raise UnusableCheckpoint(str(error)) from error
        return None


def files_are_here(
    model: str,
    revision: str | None = None,
    require_fit: Callable[[Path], object] | None = None,
) -> bool:
    """Whether a checkpoint's files are on this machine; where not, a hub that answers has them.

    Args:
        model: Directory or hub id.
        revision: Hub revision; ignored for a directory.
        require_fit: Refuses a folder that lacks files or holds another model's; None: one without
            weights.

    Raises:
        UnusableCheckpoint: Files are missing and cannot be fetched, or do not fit.
    """
    folder = folder_here(model, revision)
    if folder is None:
        return False
    try:
        require_fit(folder) if require_fit else identity_files(model, folder)
    except IncompleteCheckpoint as error:
        if Path(model).is_dir():
            raise
        if fault := hub_fault():
            raise IncompleteCheckpoint(f"{error}; a part of it was fetched, and {fault}") from error
        return False  # its loader fetches the rest
    return True


def identity_or_load(
    model: str, revision: str | None, load: Callable[[], object]
) -> Mapping[str, str]:
    """The identity of a checkpoint; a hub id that is not wholly on disk yet is loaded first."""
    if not files_are_here(model, revision):
        load()
    return checkpoint_identity(model, revision)


def model_name(model: str, identity: Mapping[str, str]) -> str:
    """A name for people that holds no path: the hub id, or a short hash of a local checkpoint."""
    if not Path(model).is_dir():
        return model
    whole = hashlib.sha256("\n".join(f"{k} {v}" for k, v in sorted(identity.items())).encode())
    return f"local-{whole.hexdigest()[:12]}"


def file_sha256(path: Path) -> str:
    """Digest of a file, which is read once on this machine for as long as it does not change.

    The hub's cache names large files by their digest, which saves reading them.
    """
    target = path.resolve()
    if path.is_symlink() and target.parent.name == "blobs" and _SHA256.fullmatch(target.name):
        return target.name
    return _sha256(str(target), _state(str(target)))


class FileState(NamedTuple):
    """Facts that change when a file is written again or put in another's place."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


def _state(path: str) -> FileState:
    found = os.stat(path)
    return FileState(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


@functools.lru_cache(maxsize=4096)
def _sha256(path: str, state: FileState) -> str:
    is_large = state.size >= _REMEMBERED_FROM
    known = recall(HASHES, path, state._asdict()) if is_large else None
    if isinstance(known, str) and _SHA256.fullmatch(known):
        return known
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    touched = max(state.mtime_ns, state.ctime_ns) / 1e9
    if is_large and time.time() - touched > _SETTLED_SECONDS and _state(path) == state:
        remember(HASHES, path, state._asdict(), digest)
    return digest
