"""The base of all settings: frozen values that survive JSON and refuse unknown names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from models.spelling import unknown


def _texts_in_one_line(schema: dict[str, Any]) -> None:
    for part in (schema, *schema.get("properties", {}).values()):
        if "description" in part:
            part["description"] = " ".join(part["description"].split())


class Settings(BaseModel):
    """A frozen group of settings; the docstring below a field is its text in forms and lists."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        json_schema_extra=_texts_in_one_line,
    )

    @classmethod
    def given(cls, values: Mapping[str, Any] | None, where: str) -> Self:
        """A group from plain values; a setting that is not given keeps its default.

        Args:
            values: Setting -> value.
            where: Name of the group in messages.

        Raises:
            ValueError: An unknown name (with the nearest known one), or a value that does not fit.
        """
        for name in values or {}:
            if name not in cls.model_fields:
                raise ValueError(unknown(f"setting of {where}", name, cls.model_fields))
        try:
            return cls.model_validate(dict(values or {}))
        except ValidationError as error:
            raise ValueError(in_words(error, where)) from error

    def with_given(self, values: Mapping[str, Any] | None, where: str) -> Self:
        """A copy with some plain values, checked as by `given`."""
        return self.changed(**self.given(values, where).model_dump(exclude_unset=True))

    def changed(self, **values: Any) -> Self:
        """A copy with other values, validated like a new one.

        Raises:
            ValueError: An unknown name or a value that does not fit.
        """
        return type(self).model_validate({**dict(self), **values})


def in_words(error: ValidationError, *where: str) -> str:
    """Each refused value in a line: its place, the reason and the value."""
    lines = []
    for fault in error.errors():
        place = ".".join(map(str, (*where, *fault["loc"])))
        given = fault["input"]
        lines.append(
            (f"{place}: " if place else "")
            + fault["msg"].removeprefix("Value error, ")
            + (f", not {given!r}" if isinstance(given, bool | int | float | str) else "")
        )
    return "\n".join(lines)
