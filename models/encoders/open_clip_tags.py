"""open_clip's table of weights: tags, where each lies and how it is fetched, without torch.

The table is a module of open_clip's package, which imports torch twice: the package itself does,
and the module does so to learn whether safetensors can be read. Here the module is run alone, and
asks safetensors itself. What it says of a tag is remembered for the package's version.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from models.user_cache import recall, remember

_ALONE: Final = "_open_clip_alone"
"""Stands for the package, so that the module finds its neighbours."""
_ASKED, _INSTEAD = b"import safetensors.torch", b"import safetensors"


def library_name() -> str:
    """open_clip and its version, as fingerprints hold it."""
    return f"open_clip {importlib.metadata.version('open_clip_torch')}"


def library_folder() -> Path:
    """The folder of open_clip's package, which is not imported for it.

    Raises:
        ModuleNotFoundError: It is not installed.
    """
    found = importlib.util.find_spec("open_clip")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("open_clip_torch is not installed; install requirements/lock.txt")
    return Path(found.submodule_search_locations[0])


class _WithoutTorch(importlib.machinery.SourceFileLoader):
    """Runs a module's source, in which safetensors is imported without its part for torch."""

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_data(self.path).replace(_ASKED, _INSTEAD), self.path)


@functools.cache
def tag_module() -> ModuleType:
    """open_clip's module `pretrained`, run alone."""
    folder = library_folder()
    alone = sys.modules.setdefault(_ALONE, ModuleType(_ALONE))
    alone.__path__ = [os.fspath(folder)]
    name, file = f"{_ALONE}.pretrained", os.fspath(folder / "pretrained.py")
    spec = importlib.util.spec_from_file_location(name, file, loader=_WithoutTorch(name, file))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tag_entry(model: str, tag: str) -> dict[str, Any]:
    """What the table says of a model's tag; empty where it has none of that name."""
    name, version = f"{model} {tag}", {"engine": library_name()}
    known = recall("open-clip-tags", name, version)
    if isinstance(known, dict):
        return known
    found: dict[str, Any] = tag_module().get_pretrained_cfg(model, tag)
    remember("open-clip-tags", name, version, found)
    return found


def tags_of(model: str) -> list[str]:
    """The tags of a model."""
    tags: list[str] = tag_module().list_pretrained_tags_by_model(model)
    return tags


def download_tagged(entry: Mapping[str, Any]) -> str:
    """The file of a tag's weights, fetched where it is not on this machine."""
    return str(tag_module().download_pretrained(entry))


def download_from_hub(repository: str, name: str) -> str:
    """A file of a hub's repository, fetched where it is not on this machine."""
    return str(tag_module().download_pretrained_from_hf(repository, filename=name))
