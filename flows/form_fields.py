"""How a flow's parameters get their types, limits, choices and texts from settings.

A parameter keeps a plain type for readers and type checkers; the marker in `Annotated` makes its
field in the run dialog and its check before a run exists.
"""

from __future__ import annotations

import inspect
import json
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
        starts: System -> values that stand where none are given; none: the defaults of `kind`.
    """

    kind: type[Settings]
    where: str
    without: tuple[str, ...] = ()
    starts: tuple[tuple[str, Settings], ...] = ()

    def check(self, values: Values) -> Values:
        """The values as they were given.

        Raises:
            ValueError: An unknown name, or a value that does not fit.
        """
        if twice := sorted(set(values) & set(self.without)):
            raise ValueError(f"give {', '.join(twice)} as a parameter, not in {self.where}")
        self.kind.given(values, self.where)
        return values

    def beside(self, values: Values) -> Values:
        """Those of the values that the form does not open with.

        Prefect's form sends every field that shows a value, touched or not.
        """
        given, shown = self.kind.given(values, self.where), self._fields()
        return {
            name: value
            for name, value in values.items()
            if "default" not in shown[name] or _plain(given, name) != shown[name]["default"]
        }

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The settings' fields, each with its text."""
        fields = self._fields()
        return {
            "type": "object",
            "description": inspect.getdoc(self.kind),
            "properties": {name: fields[name] for name in fields if name not in self.without},
            "additionalProperties": False,
        }

    def _fields(self) -> dict[str, dict[str, Any]]:
        """The schema of each field. It shows a default only where all systems start from that."""
        fields: dict[str, dict[str, Any]] = self.kind.model_json_schema()["properties"]
        for name, own in fields.items() if self.starts else ():
            systems: dict[str, list[str]] = {}
            for system, start in self.starts:
                systems.setdefault(json.dumps(_plain(start, name)), []).append(system)
            own.pop("default", None)
            if len(systems) == 1:
                own["default"] = json.loads(next(iter(systems)))
            else:
                each = "; ".join(f"{', '.join(of)} {value}" for value, of in systems.items())
                own["description"] += f" Empty: the system's own ({each})."
        return fields


def _plain(settings: Settings, name: str) -> Any:
    """One of the settings as plain JSON."""
    return settings.model_dump(mode="json", include={name})[name]


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
