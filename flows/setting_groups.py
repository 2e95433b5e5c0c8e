"""Groups of settings that a form shows field by field, while flows get just what was given.

`Annotated[Values, Group(NetworkSettings, "network")]` is a mapping of names to values. The run
dialog makes a group of fields of it, with the choices and the texts of the settings' own record;
an unknown name or a value that does not fit is refused when the run is asked for.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from tasks.training.job import group_of

Values = dict[str, Any]
AS_RECORDED: Final[Values] = {}
"""Nothing given: every setting keeps its default."""


@dataclass(frozen=True)
class Group:
    """What a mapping of settings may hold.

    Attributes:
        kind: a frozen record of settings with defaults: a dataclass or a pydantic model.
        where: what people call the group.
        without: settings that are parameters of their own.
    """

    kind: type[Any]
    where: str
    without: tuple[str, ...] = ()

    def check(self, values: Values) -> Values:
        """The values as they were given.

        Raises:
            ValueError: an unknown name (the known ones are listed), or a value that does not fit.
        """
        if twice := sorted(set(values) & set(self.without)):
            raise ValueError(
                f"give {', '.join(twice)} as a parameter of its own, not in {self.where}"
            )
        if issubclass(self.kind, BaseModel):
            self.kind.model_validate(values)
        else:
            group_of(self.kind, values, self.where)
        return values

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """A mapping that is checked after it was read."""
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The record's own fields, each with its text."""
        own = TypeAdapter(self.kind).json_schema()
        texts = attribute_texts(self.kind)
        fields = {
            name: {"description": texts[name], **field} if name in texts else field
            for name, field in own["properties"].items()
            if name not in self.without
        }
        about = inspect.getdoc(self.kind) or ""
        return {
            "type": "object",
            "description": about.partition("\n")[0],
            "properties": fields,
            "additionalProperties": False,
        }


def attribute_texts(kind: type[Any]) -> dict[str, str]:
    """What the `Attributes:` of a record's docstring say of each field, in one line each."""
    _, _, listed = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    entries = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", listed, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
