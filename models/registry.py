"""Names of engines and how to load them; nothing heavy is imported before one is asked for.

To add a captioner, an encoder family or an LLM engine: one file with a `load_*` function that
takes settings as keywords, and one line here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final, cast

from models.protocols import Captioner, ImageTextEncoder, TextGenerator

CAPTIONERS: Final[Mapping[str, str]] = {
    "blip2": "models.captioners.blip2:load_blip2",
    "openai_images": "models.captioners.openai_images:load_openai_images",
}

GENERATORS: Final[Mapping[str, str]] = {
    "transformers": "models.generators.transformers_local:load_transformers",
    "openai_server": "models.generators.openai_server:load_openai_server",
}

ENCODERS: Final[Mapping[str, str]] = {
    "open_clip": "models.open_clip_encoder:load_open_clip",
}


def load_captioner(name: str, **settings: object) -> Captioner:
    """The captioner of that name; settings are the fields of its settings record."""
    return cast(Captioner, _load("captioner", CAPTIONERS, name, settings))


def load_generator(name: str, **settings: object) -> TextGenerator:
    """The text generator of that name; settings are the fields of its settings record."""
    return cast(TextGenerator, _load("text generator", GENERATORS, name, settings))


def load_encoder(name: str, **settings: object) -> ImageTextEncoder:
    """The image-text encoder of that name; settings are the fields of its settings record."""
    return cast(ImageTextEncoder, _load("encoder", ENCODERS, name, settings))


def _load(kind: str, registry: Mapping[str, str], name: str, settings: Mapping[str, Any]) -> object:
    if name not in registry:
        raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(sorted(registry))}")
    module, function = registry[name].split(":")
    factory = getattr(importlib.import_module(module), function)
    try:
        return factory(**settings)
    except TypeError as failure:
        if "unexpected keyword argument" not in str(failure) and "required" not in str(failure):
            raise
        raise ValueError(f"settings of {kind} {name!r}: {failure}") from failure
