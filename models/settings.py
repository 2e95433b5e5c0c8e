"""The base of all settings: frozen values that survive JSON and refuse unknown names."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from models.spelling import unknown

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def _with_texts(schema: dict[str, Any], kind: type[Settings]) -> None:
    if "description" in schema:
        schema["description"] = _in_one_line(schema["description"])
    for name, part in schema.get("properties", {}).items():
        if text := kind.text_of(name):
            part["description"] = text


def _in_one_line(text: str) -> str:
    return " ".join(text.split())


@functools.cache
def _texts(kind: type) -> Mapping[str, str]:
    """The docstrings below the fields that a class states itself.

    Read when they are asked for: pydantic's `use_attribute_docstrings` reads them in every process
    that imports a class, which takes half a second of each command.
    """
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, below in pairwise(body.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            said = below.value if isinstance(below, ast.Expr) else None
            text = said.value if isinstance(said, ast.Constant) else ""
            found[field.target.id] = _in_one_line(text) if isinstance(text, str) else ""
    return found


class Settings(BaseModel):
    """A frozen group of settings; the docstring below a field is its text in forms and lists."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra=_with_texts,
    )

    @classmethod
    def text_of(cls, name: str) -> str:
        """What a field says of itself, or else the docstring below it, in one line."""
        if said := cls.model_fields[name].description:
            return _in_one_line(said)
        owners = [each for each in cls.__mro__ if name in inspect.get_annotations(each)]
        return _texts(owners[0]).get(name, "") if owners else ""

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
    return "\n".join(fault_in_words(fault, *where) for fault in error.errors())


def fault_in_words(fault: ErrorDetails, *where: str) -> str:
    """One refused value."""
    place = ".".join(map(str, (*where, *fault["loc"])))
    given = fault["input"]
    return (
        (f"{place}: " if place else "")
        + fault["msg"].removeprefix("Value error, ")
        + (f", not {given!r}" if isinstance(given, bool | int | float | str) else "")
    )
