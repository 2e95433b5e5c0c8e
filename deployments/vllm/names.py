"""Names and identities of served models, from the contents of their files."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from deployments.errors import UserError

DTYPES = ("bfloat16", "float16", "float32")
"""Without `auto`: the precision is part of the identity."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM takes as the highest rank of an adapter."""
SHOWN = 12
"""Characters of a fingerprint that a name carries."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Named:
    """A model or adapter under the name that it is served by.

    Attributes:
        served: The served name: a label, the start of each fingerprint, the dtype.
        identity: The whole fingerprints in words; a profile's `identity`.
        source: Absolute folder, or hub id.
        revision: Commit of a hub id; empty for a folder.
        marks: Shortened fingerprints in the name, of the base first.
        dtype: Number format that it runs in.
    """

    served: str
    identity: str
    source: str
    revision: str
    marks: tuple[str, ...]
    dtype: str


def named_base(model: str, revision: str, dtype: str, name: str) -> Named:
    """Name a base model: a folder by its files' contents, a hub id by its commit.

    Raises:
        UserError: a hub id without a full commit, a folder with one, or an odd label.
        ValueError: the folder holds no weights.
    """
    if not _NAME.fullmatch(name):
        raise UserError(f"a name holds letters, digits, '.', '_' and '-' only, not {name!r}")
    if Path(model).is_dir():
        if revision:
            raise UserError("a folder has no revision: leave --revision empty")
        digest = folder_digest(model)
        weights, source, mark = f"sha256:{digest}", str(Path(model).resolve()), digest[:SHOWN]
    else:
        if not _COMMIT.fullmatch(revision):
            raise UserError(
                f"{model!r} is not a folder here; for a hub id, give its commit: --revision, 40 "
                "hexadecimal digits (a branch such as main moves)"
            )
        weights, source, mark = f"{model}@{revision}", model, revision[:SHOWN]
    return Named(f"{name}-{mark}-{dtype}", f"{weights} {dtype}", source, revision, (mark,), dtype)


def named_adapter(base: Named, name: str, folder: str) -> Named:
    """Name a LoRA adapter on a base; the name holds both, since both decide the answers.

    Raises:
        UserError: there is no such folder.
        ValueError: it holds no weights.
    """
    if not Path(folder).is_dir():
        raise UserError(f"the adapter {name} is not a folder: {folder}")
    digest = folder_digest(folder)
    marks = (*base.marks, digest[:SHOWN])
    served = "-".join((name, *marks, base.dtype))
    identity = f"{base.identity} + adapter sha256:{digest}"
    return Named(served, identity, str(Path(folder).resolve()), "", marks, base.dtype)


def folder_digest(folder: str) -> str:
    """One sha256 of all files of a checkpoint that can change its answers, whatever its path.

    Raises:
        ValueError: it holds no weights.
    """
    from models.checkpoints import checkpoint_identity

    lines = (f"{name} {sha256}" for name, sha256 in sorted(checkpoint_identity(folder).items()))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def needed_rank(folder: str) -> int:
    """The smallest highest rank that vLLM can be given for an adapter.

    Raises:
        UserError: the rank is above what vLLM takes.
    """
    rank = int(json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))["r"])
    for allowed in RANKS:
        if rank <= allowed:
            return allowed
    raise UserError(f"the adapter's rank is {rank}; vLLM takes at most {RANKS[-1]}")
