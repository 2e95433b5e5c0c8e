"""A checkpoint of transformers in this process, as captioners, verifiers and embedders have it.

The module imports no framework: weights are read when the model is first used.
"""

from __future__ import annotations

import importlib.util
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

from models.devices import pick_device, pick_dtype
from models.engine_settings import CheckpointSettings

SettingsT = TypeVar("SettingsT", bound=CheckpointSettings)


class LoadedCheckpoint(Generic[SettingsT]):
    """A model and its processor, each read once, when it is first needed."""

    MODEL: ClassVar[str]
    """Name of the model's class, or auto class, in transformers."""
    PROCESSOR: ClassVar[str] = "AutoProcessor"
    """Name of the processor's."""

    def __init__(self, settings: SettingsT) -> None:
        """Remember the settings.

        Raises:
            ValueError: A GPU is asked for and there is none.
        """
        self._settings = settings
        self._device = pick_device(settings.device)
        self._dtype = pick_dtype(settings.dtype, settings.device)

    def fetch(self) -> None:
        """Bring all files of a hub's checkpoint to this machine."""
        _ = self._model, self._processor

    @cached_property
    def _model(self) -> Any:
        import transformers

        from models.loaded_weights import load_model

        settings = self._settings
        kind = getattr(transformers, self.MODEL)
        model = load_model(kind, settings.model, settings.revision, dtype=self._dtype)
        return model.to(self._device)

    @cached_property
    def _processor(self) -> Any:
        import transformers

        from models.loaded_weights import load_processor

        settings = self._settings
        kind = getattr(transformers, self.PROCESSOR)
        checked = self._reader_of_words
        return self._set_up(load_processor(kind, settings.model, settings.revision, checked))

    @property
    def _reader_of_words(self) -> Any:
        """The part of the model that must know every word of the tokenizer."""
        return self._model

    def _set_up(self, processor: Any) -> Any:
        """The processor as the engine uses it; refuses one that lacks something.

        Raises:
            ValueError: Something is missing; the message says what, and where it belongs.
        """
        return processor


def require_chat_template(processor: Any, model: str) -> None:
    """Refuse a processor without a chat template.

    Raises:
        ValueError: It has none; the message says where it is published.
    """
    if getattr(processor, "chat_template", None) is None:
        raise ValueError(
            f"the processor of {model!r} lacks a chat template; copy the chat_template.jinja that "
            "is published with the weights into its folder"
        )


def images_scaled_by() -> str:
    """The library that transformers scales images with: torchvision where it is installed.

    The two scale a photograph to pixels that differ by a grey level here and there.
    """
    return "torchvision" if importlib.util.find_spec("torchvision") else "pillow"
