"""Which networks compute, seen where nothing can hide: in every forward pass of every module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

KINDS = (
    "open_clip",
    "models.textual_inversion.network",
    "models.instructcir",
    "models.encoders.text_tower",
)


@contextmanager
def forward_passes() -> Iterator[Counter[str]]:
    """Count forward passes while open, by class of transformers model or package of the module."""
    import torch
    from transformers import PreTrainedModel

    counted: Counter[str] = Counter()

    def note(module: torch.nn.Module, inputs: Any) -> None:
        where = type(module).__module__
        if isinstance(module, PreTrainedModel):
            counted[type(module).__name__] += 1
        elif kind := next((kind for kind in KINDS if where.startswith(kind)), ""):
            counted[kind] += 1

    handle = torch.nn.modules.module.register_module_forward_pre_hook(note)
    try:
        yield counted
    finally:
        handle.remove()


def text_passes(counted: Counter[str]) -> int:
    """Passes of captioners and language models."""
    return sum(count for kind, count in counted.items() if kind not in KINDS)


def forget_models() -> None:
    """Empty this process's memory of models and of what their files tell."""
    import gc

    from tasks import engines, networks

    for module in (engines, networks):
        for value in vars(module).values():
            clear: Callable[[], None] | None = getattr(value, "cache_clear", None)
            if clear is not None:
                clear()
    gc.collect()


def refuse_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on nothing can load or make a network."""
    import torch
    from transformers import PreTrainedModel

    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)
    monkeypatch.setattr("open_clip.create_model", refuse)
    monkeypatch.setattr("open_clip.factory.load_checkpoint", refuse)
    monkeypatch.setattr("models.textual_inversion.network.new_module", refuse)
    monkeypatch.setattr("models.instructcir.checkpoint.load_network", refuse)
    monkeypatch.setattr("peft.PeftModel.from_pretrained", refuse)
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", refuse)
