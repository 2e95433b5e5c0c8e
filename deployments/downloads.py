"""Checks of what a profile downloads: how large it is, and whether this machine can run it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from deployments.findings import Finding
from models.encoders.spec import EncoderSpec
from models.engine_settings import CheckpointSettings
from models.hub import hub_fault
from tasks.settings import Profile

GB: Final = 1e9


@dataclass(frozen=True)
class Weights:
    """A published checkpoint.

    Attributes:
        parameters: Their number.
        stored: Bytes of one in the published files.
        source: Where both are said.
    """

    parameters: float
    stored: int
    source: str

    @property
    def download(self) -> float:
        """Bytes of the published files."""
        return self.parameters * self.stored


_HUB: Final = "parameters and precision on its hub page"
_CLIP: Final = "parameters in open_clip's docs/model_profile.csv, stored as float32"
WEIGHTS: Final[Mapping[str, Weights]] = {
    "ViT-B-32-quickgelu openai": Weights(151.3e6, 4, _CLIP),
    "ViT-L-14-quickgelu openai": Weights(427.6e6, 4, _CLIP),
    "Salesforce/blip2-opt-2.7b": Weights(3.74e9, 4, _HUB),
    "Qwen/Qwen2.5-1.5B-Instruct": Weights(1.54e9, 2, _HUB),
}
"""Checkpoints of the shipped profiles, by hub id or by name and tag of open_clip."""


@dataclass(frozen=True)
class Wanted:
    """A checkpoint that a profile fetches from a hub.

    Attributes:
        purposes: What the profile has it for.
        name: Hub id, or name and tag of open_clip.
        device: Where it runs.
        dtype: Precision that it runs in.
    """

    purposes: tuple[str, ...]
    name: str
    device: str
    dtype: str

    @property
    def weights(self) -> Weights | None:
        """What is published of it; None where that is not known here."""
        return WEIGHTS.get(self.name)

    @property
    def is_here(self) -> bool:
        """Whether the hub's cache holds files of it."""
        from huggingface_hub.constants import HF_HUB_CACHE

        repository = _OPEN_CLIP.get(self.name, self.name)
        return any(Path(HF_HUB_CACHE).glob(f"models--{repository.replace('/', '--')}/snapshots/*"))

    @property
    def on_disk(self) -> float:
        """Bytes that are still to be downloaded, as far as they are known."""
        return 0.0 if self.is_here or self.weights is None else self.weights.download


_OPEN_CLIP: Final = {
    "ViT-B-32-quickgelu openai": "timm/vit_base_patch32_clip_224.openai",
    "ViT-L-14-quickgelu openai": "timm/vit_large_patch14_clip_224.openai",
}
"""The repositories of open_clip's weights."""


def check_downloads(profile: Profile) -> Iterator[Finding]:
    """Each checkpoint that comes from a hub, then all of them against disk and memory."""
    wanted = wanted_by(profile)
    for each in wanted:
        yield _size_of(each)
    if absent := [each.name for each in wanted if not each.is_here]:
        yield _check_hub(absent)
    if wanted:
        yield _check_disk(wanted)
        yield check_memory(wanted)


def wanted_by(profile: Profile) -> list[Wanted]:
    """The checkpoints that a profile fetches, each once."""
    engines: dict[str, object] = {
        "encoder": profile.encoder,
        "captioner": profile.captioner,
        "text generator": profile.generator,
        "captioner of triplets": profile.instructcir.captioner,
        "rewriter": profile.instructcir.rewriter,
    }
    found: dict[str, Wanted] = {}
    for what, engine in engines.items():
        if isinstance(engine, EncoderSpec) and engine.pretrained and not engine.directory:
            own = Wanted((what,), f"{engine.name} {engine.pretrained}", engine.device, engine.dtype)
        elif isinstance(engine, CheckpointSettings) and _is_hub_id(engine.model):
            own = Wanted((what,), engine.model, engine.device, engine.dtype)
        else:
            continue
        before = found.get(own.name)  # it runs in the precision of its first purpose
        found[own.name] = (
            replace(before, purposes=(*before.purposes, what)) if before is not None else own
        )
    return list(found.values())


def _is_hub_id(model: str) -> bool:
    return not model.startswith(("/", ".", "~")) and not Path(model).exists()


def _size_of(wanted: Wanted) -> Finding:
    what = " and ".join(wanted.purposes)
    if wanted.is_here:
        return Finding(what, "ok", f"{wanted.name}, in the hub's cache")
    weights, size = wanted.weights, "size not known here"
    if weights:
        size = f"{weights.download / GB:.1f} GB ({weights.source})"
    return Finding(what, "note", f"{wanted.name}: {size}", "fetched from its hub at first use")


def _check_hub(absent: list[str]) -> Finding:
    if fault := hub_fault():
        remedy = (
            f"download them where there is a network ({', '.join(absent)}) and copy the hub's "
            "cache here (HF_HOME names its folder), or name directories in the profile"
        )
        return Finding("hub", "broken", fault, remedy)
    return Finding("hub", "ok", "it answers")


def _check_disk(wanted: list[Wanted]) -> Finding:
    from huggingface_hub.constants import HF_HUB_CACHE

    place = Path(HF_HUB_CACHE)
    while not place.exists():
        place = place.parent
    free, needed = shutil.disk_usage(place).free, sum(each.on_disk for each in wanted)
    text = f"{needed / GB:.1f} GB to fetch, {free / GB:.1f} GB free at {place}"
    if needed > free:
        return Finding("downloads", "broken", text, "set HF_HOME to a folder with more space")
    return Finding("downloads", "ok", text)


def check_memory(wanted: list[Wanted]) -> Finding:
    """Whether the weights of all models fit at once: a search has them all loaded."""
    import torch

    gpu = torch.cuda.is_available()
    auto = "cuda" if gpu else "cpu"
    unknown = [each.name for each in wanted if each.weights is None]
    needed = sum(
        each.weights.parameters * _bytes(each.dtype, auto) for each in wanted if each.weights
    )
    there = float(torch.cuda.get_device_properties(0).total_memory) if gpu else _memory()
    where = "GPU 0" if gpu else "memory of this machine, without a GPU"
    text = f"weights take {needed / GB:.1f} GB of {there / GB:.1f} GB ({where})"
    text += f"; not counted, sizes not known here: {', '.join(unknown)}" if unknown else ""
    if needed > 0.9 * there:
        remedy = "set captioner.dtype=bf16 and generator.dtype=bf16, or choose smaller models"
        return Finding("models in memory", "broken", text, remedy)
    if not gpu:
        remedy = "captions are slow without a GPU"
        return Finding("models in memory", "note", text, remedy)
    return Finding("models in memory", "ok", text)


def _bytes(dtype: str, device: str) -> int:
    """Bytes of a parameter in a precision; auto is bf16 on a GPU and fp32 elsewhere."""
    full = dtype in ("fp32", "float32") or (dtype == "auto" and device == "cpu")
    return 4 if full else 2


def _memory() -> float:
    """Bytes of memory of this machine."""
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
