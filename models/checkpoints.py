"""Where a checkpoint's files are and what they are: the identity part of every fingerprint.

A checkpoint is a local directory or a Hugging Face hub id; both are loaded by the same code.
Identity comes from the contents of the files that change a model's output, never from a path.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

_IDENTITY_SUFFIXES: Final = (".safetensors", ".bin", ".json", ".jinja", ".txt", ".model", ".gz")
_NOT_IDENTITY: Final = ("recipe.json", "trainer_state.json", "requirements.txt")
_HUB_BLOB: Final = re.compile(r"[0-9a-f]{64}")


def loading_arguments(model: str, revision: str | None = None) -> dict[str, Any]:
    """Arguments of `from_pretrained` that keep a local directory offline and a hub id pinned."""
    if Path(model).is_dir():
        return {"local_files_only": True}
    return {"revision": revision} if revision else {}


def checkpoint_identity(model: str, revision: str | None = None) -> Mapping[str, str]:
    """File name -> sha256 of every file of a checkpoint that can change what the model answers.

    Call it after the model was loaded, so that a hub id is already in the local cache.

    Args:
        model: Directory or hub id.
        revision: Hub revision; ignored for a directory.

    Raises:
        ValueError: When there is no such checkpoint, or it holds no weights.
    """
    if Path(model).is_dir():
        folder = Path(model)
    else:
        folder = Path(snapshot_download(model, revision=revision, local_files_only=True))
    files = {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name.endswith(_IDENTITY_SUFFIXES)
        if path.name not in _NOT_IDENTITY
    }
    if not any(name.endswith((".safetensors", ".bin")) for name in files):
        raise ValueError(
            f"{model!r} holds no weights (*.safetensors or *.bin); give the directory of a saved "
            "checkpoint or a Hugging Face hub id"
        )
    return files


def identity_or_load(
    model: str, revision: str | None, load: Callable[[], object]
) -> Mapping[str, str]:
    """The identity of a checkpoint; a hub id that is not on disk yet is loaded first."""
    try:
        return checkpoint_identity(model, revision)
    except LocalEntryNotFoundError:
        load()
        return checkpoint_identity(model, revision)


def model_name(model: str, identity: Mapping[str, str]) -> str:
    """A name for people that holds no path: the hub id, or a short hash of a local checkpoint."""
    if not Path(model).is_dir():
        return model
    whole = hashlib.sha256("\n".join(f"{k} {v}" for k, v in sorted(identity.items())).encode())
    return f"local-{whole.hexdigest()[:12]}"


def file_sha256(path: Path) -> str:
    """Digest of a file; the hub's cache names large files by it, which saves reading them."""
    target = path.resolve()
    if path.is_symlink() and target.parent.name == "blobs" and _HUB_BLOB.fullmatch(target.name):
        return target.name
    stat = target.stat()
    return _digest_file(str(target), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _digest_file(path: str, size: int, modified_ns: int) -> str:
    """sha256 of a file's bytes; size and time are there so that a rewritten file is read again."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
