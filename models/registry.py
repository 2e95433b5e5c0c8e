"""Names of engines and how to load them; nothing heavy is imported before one is asked for.

To add a captioner, an encoder family or an LLM engine: one file with a settings dataclass and a
factory that takes it, and one line here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Final, cast

from models.protocols import Captioner, ImageTextEncoder, TextGenerator


@dataclass(frozen=True, slots=True)
class Engine:
    """Where an engine lives: a module, its factory, and the settings dataclass it takes."""

    module: str
    factory: str
    settings: str


CAPTIONERS: Final[Mapping[str, Engine]] = {
    "blip2": Engine("models.captioners.blip2", "Blip2Captioner", "InProcessSettings"),
    "llava": Engine("models.captioners.llava", "LlavaCaptioner", "InProcessSettings"),
    "openai_images": Engine(
        "models.captioners.openai_images", "OpenAIImageCaptioner", "OpenAIServerSettings"
    ),
}

GENERATORS: Final[Mapping[str, Engine]] = {
    "transformers": Engine(
        "models.generators.transformers", "TransformersGenerator", "LocalGeneratorSettings"
    ),
    "openai_server": Engine(
        "models.generators.openai_server", "OpenAIServerGenerator", "OpenAIServerSettings"
    ),
}

ENCODERS: Final[Mapping[str, Engine]] = {
    "open_clip": Engine("models.encoders.loading", "load_encoder", "EncoderSpec"),
}


def load_captioner(name: str, **settings: object) -> Captioner:
    """The captioner of that name; settings are the fields of its settings dataclass."""
    return cast(Captioner, _load("captioner", CAPTIONERS, name, settings))


def load_generator(name: str, **settings: object) -> TextGenerator:
    """The text generator of that name; settings are the fields of its settings dataclass."""
    return cast(TextGenerator, _load("text generator", GENERATORS, name, settings))


def load_encoder(name: str, **settings: object) -> ImageTextEncoder:
    """The image-text encoder of that name; settings are the fields of its settings dataclass."""
    return cast(ImageTextEncoder, _load("encoder", ENCODERS, name, settings))


def _load(
    kind: str, registry: Mapping[str, Engine], name: str, settings: Mapping[str, object]
) -> object:
    """Import the engine's module, check the names of its settings, and build it.

    Raises:
        ValueError: For an unknown engine, an unknown setting or a missing one.
    """
    if name not in registry:
        raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(sorted(registry))}")
    engine = registry[name]
    module = importlib.import_module(engine.module)
    record = getattr(module, engine.settings)
    known = {field.name: field for field in fields(record)}
    if unknown := sorted(settings.keys() - known.keys()):
        raise ValueError(
            f"{kind} {name!r} has no setting {', '.join(unknown)}; known: {', '.join(known)}"
        )
    required = {
        field.name
        for field in known.values()
        if field.default is MISSING and field.default_factory is MISSING
    }
    if missing := sorted(required - settings.keys()):
        raise ValueError(f"{kind} {name!r} needs the setting {', '.join(missing)}")
    return getattr(module, engine.factory)(record(**settings))
