"""How a flow's parameters get their types, limits, choices and texts from settings.

A parameter keeps a plain type for readers and type checkers; the marker in `Annotated` makes its
field in the run dialog and its check before a run exists.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, get_args

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from models.settings import Settings
from models.spelling import unknown
from tasks.settings import Profile

Values = dict[str, Any]
DEFAULTS: Final[Values] = {}
"""Nothing given: every setting keeps its default."""


@dataclass(frozen=True)
class Text:
    """The text of a parameter that several flows have."""

    text: str

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The parameter's schema with the text."""
        return {**handler(schema), "description": self.text}


@dataclass(frozen=True)
class Of:
    """A parameter that is a field of some settings: its type, limits and text."""

    kind: type[Settings]
    name: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """The schema of the settings' field."""
        return handler.generate_schema(self.kind.model_fields[self.name].rebuild_annotation())

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The schema of the settings' field with its text."""
        return {**handler(schema), "description": self.kind.text_of(self.name)}


class Checked(ABC):
    """A parameter that is checked after it was read."""

    @abstractmethod
    def check(self, value: Any) -> Any:
        """The value as it was given.

        Raises:
            ValueError: It does not fit.
        """

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """The schema of the parameter's plain type, and the check."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))


@dataclass(frozen=True)
class OneOf(Checked):
    """A text parameter that is one of some names; forms offer them in a list."""

    what: str
    names: tuple[str, ...]

    def check(self, name: str) -> str:
        """The name as it was given.

        Raises:
            ValueError: An unknown name (with the nearest known one).
        """
        if name not in self.names:
            raise ValueError(unknown(self.what, name, self.names))
        return name

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The list of names."""
        return {"type": "string", "enum": list(self.names)}


@dataclass(frozen=True)
class Group(Checked):
    """A mapping of settings that a form shows field by field; a flow gets the given values only.

    Attributes:
        kind: Settings whose fields all have defaults.
        where: Name of the group in messages.
        without: Settings that are parameters of the flow instead.
    """

    kind: type[Settings]
    where: str
    without: tuple[str, ...] = ()

    def check(self, values: Values) -> Values:
        """The values as they were given.

        Raises:
            ValueError: An unknown name, or a value that does not fit.
        """
        if twice := sorted(set(values) & set(self.without)):
            raise ValueError(f"give {', '.join(twice)} as a parameter, not in {self.where}")
        self.kind.given(values, self.where)
        return values

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The settings' fields, each with its text."""
        fields = self.kind.model_json_schema()["properties"]
        return {
            "type": "object",
            "description": inspect.getdoc(self.kind),
            "properties": {name: fields[name] for name in fields if name not in self.without},
            "additionalProperties": False,
        }


def chosen(setting: str, unset: Any, **limits: Any) -> Any:
    """A form's field that replaces one of the profile's settings.

    Args:
        setting: Dotted name in the profile; the field has its text.
        unset: Value that leaves the profile's.
        limits: As for `pydantic.Field`.
    """
    said = f"{'Empty' if unset in ('', None) else unset}: the profile's."
    return Field(unset, description=f"{setting_text(setting)} {said}", **limits)


def setting_text(setting: str) -> str:
    """The text of one of the profile's settings.

    Where engines describe it differently, each text is preceded by the names of its engines.
    """
    *path, name = setting.split(".")
    kinds: list[type[Settings]] = [Profile]
    for part in path:
        kinds = [inner for kind in kinds for inner in _groups(kind.model_fields[part].annotation)]
    engines: dict[str, list[str]] = {}
    for kind in kinds:
        if name in kind.model_fields:
            text = kind.text_of(name)
            engine = kind.model_fields["engine"].default if "engine" in kind.model_fields else ""
            engines.setdefault(text, []).append(engine)
    if len(engines) == 1 and len(kinds) == sum(map(len, engines.values())):
        return next(iter(engines))
    return " ".join(f"{', '.join(names)}: {text}" for text, names in engines.items())


def _groups(annotation: Any) -> Iterator[type[Settings]]:
    """The settings that a field may hold: one kind, or each member of a union."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield annotation
    for part in get_args(annotation):
        yield from _groups(part)
