"""A stand-in for pydantic where it is not installed: settings are their names and defaults.

The settings of `models` are pydantic models. The benchmark makes a few of them from values of its
own, for which names and defaults suffice; so a GPU machine needs no pydantic. Nothing is checked.
"""

from __future__ import annotations

import importlib.machinery
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, ClassVar, Final, Self

_REQUIRED: Final = object()


class BaseModel:
    """A frozen group of values; annotations name them, assignments are their defaults."""

    model_fields: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        """Collect the fields of a class and its bases."""
        cls.model_fields = {
            name: base.__dict__.get(name, _REQUIRED)
            for base in reversed(cls.__mro__)
            for name, annotation in inspect.get_annotations(base).items()
            if base is not BaseModel
            and not name.startswith(("_", "model_"))
            and "ClassVar" not in str(annotation)
        }

    def __init__(self, **values: Any) -> None:
        """Take the values given, and the defaults of the others.

        Raises:
            TypeError: A value without default is missing, or a name is unknown.
        """
        if strange := values.keys() - type(self).model_fields.keys():
            raise TypeError(f"{type(self).__name__} has no {', '.join(sorted(strange))}")
        for name, default in type(self).model_fields.items():
            value = values.get(name, default)
            if value is _REQUIRED:
                raise TypeError(f"{type(self).__name__} needs {name}")
            self.__dict__[name] = value

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Names and values."""
        return iter(self.__dict__.items())

    @classmethod
    def model_validate(cls, values: Mapping[str, Any]) -> Self:
        """A group of values by name."""
        return cls(**values)


class _Remark:
    """Something that only checks or describes values."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Whatever it says is dropped."""


def _field(default: Any = _REQUIRED, **checks: Any) -> Any:
    return _REQUIRED if default is ... else default


def _validator(*fields: str, **options: Any) -> Callable[[Any], Any]:
    return lambda function: function


def install_where_missing() -> bool:
    """Put the stand-in in pydantic's place where that is missing; tells whether it did."""
    try:
        import pydantic  # noqa: F401
    except ImportError:
        pass
    else:
        return False
    _module(
        "pydantic",
        BaseModel=BaseModel,
        BeforeValidator=_Remark,
        ConfigDict=dict,
        Field=_field,
        ValidationError=type("ValidationError", (ValueError,), {}),
        WithJsonSchema=_Remark,
        field_validator=_validator,
        model_validator=_validator,
    )
    _module("pydantic_core", to_jsonable_python=lambda value: value)
    return True


def _module(name: str, **content: Any) -> None:
    module = ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__dict__.update(content)
    sys.modules[name] = module
