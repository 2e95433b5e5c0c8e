"""Groups of settings that a form shows field by field, while a flow gets the given values only.

`Annotated[Values, Group(NetworkSettings, "network")]` is a mapping of names to values. The run
dialog shows the settings' own fields, choices and texts; an unknown name or a value that does not
fit is refused before a run exists.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from models.settings import Settings

Values = dict[str, Any]
DEFAULTS: Final[Values] = {}
"""Nothing given: every setting keeps its default."""


@dataclass(frozen=True)
class Group:
    """The settings that a mapping may hold.

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

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """A mapping that is checked after it was read."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))

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
