"""The base of all settings: frozen values that survive JSON and refuse unknown names."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen group of settings; the docstring below a field is its text everywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def changed(self, **values: Any) -> Self:
        """A copy with other values, validated like a new one.

        Raises:
            ValueError: an unknown name or a value that does not fit.
        """
        return type(self).model_validate({**dict(self), **values})
