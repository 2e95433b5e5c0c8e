"""Texts and checks of a flow's parameters, from the schema that Prefect's forms are made from."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ArgsKwargs

from deployments.errors import UserError
from models.settings import in_words
from models.spelling import unknown

Schema = Mapping[str, Any]
_NOTHING: Final[tuple[Any, ...]] = (None, "", [], {})
_FINITE: Final = ConfigDict(allow_inf_nan=False)


def parameter_texts(flow: Any) -> Iterator[tuple[str, str]]:
    """The name that `--set` takes and a text, of each parameter and each field of a group."""
    schema = flow.parameters.model_dump()
    for name, field in schema["properties"].items():
        required = name in schema.get("required", ())
        yield from _texts(name, field, schema["definitions"], required)


def setting_texts(values: Mapping[str, Any], schema: Schema) -> Iterator[tuple[str, Any, str]]:
    """Dotted name, value and text of each setting.

    Args:
        values: The settings as plain JSON.
        schema: JSON schema of their model.
    """
    yield from _settings("", values, schema, schema.get("$defs", {}))


def fitted(request: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as a flow takes them: `a,b` for a list is ["a", "b"], a number for a text is text.

    Args:
        request: The function of `flows.requests` that has the flow's parameters.
        values: Parameter -> value as it was typed.

    Raises:
        UserError: A field that its group lacks, or a word that is not among a parameter's choices.
    """
    schema = TypeAdapter(request).json_schema()
    fields, definitions = schema["properties"], schema.get("$defs", {})
    made = {name: _fit(value, fields[name], definitions) for name, value in values.items()}
    for name, value in made.items():
        _refuse(name, value, fields[name], definitions)
    return made


def checked(request: Any, values: Mapping[str, Any]) -> Any:
    """What a flow is asked for, checked as its run checks it.

    Raises:
        UserError: values that do not fit their parameters, each with its place.
        ValueError: as the request: something that is missing or cannot be used.
    """
    try:
        adapter = TypeAdapter(request, config=_FINITE)
        return adapter.validate_python(ArgsKwargs((), dict(values)))
    except ValidationError as error:
        raise UserError(in_words(error)) from error


def read(request: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as a flow gets them, its defaults among them, whatever exists.

    Args:
        request: The function of `flows.requests` that has the flow's parameters; not called.
        values: All parameters, as plain JSON.

    Raises:
        ValidationError: values that do not fit their parameters.
    """
    found: dict[str, Any] = _reader(request).validate_python(ArgsKwargs((), dict(values)))
    return found


@functools.cache
def _reader(request: Any) -> TypeAdapter[Any]:
    def parameters(**given: Any) -> dict[str, Any]:
        return given

    uncalled: Any = functools.wraps(request)(parameters)
    return TypeAdapter(uncalled, config=_FINITE)


def _fit(value: Any, field: Schema, definitions: Schema) -> Any:
    types = {variant.get("type") for variant in _variants(field, definitions)}
    if "array" in types and isinstance(value, str) and "string" not in types:
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, Mapping) and "array" in types and "object" not in types:
        return [value]
    if isinstance(value, bool | int | float):
        if "array" in types:
            return [value]
        if types.isdisjoint({"boolean", "integer", "number"}) and "string" in types:
            return json.dumps(value)
    return value


def _texts(
    name: str, field: Schema, definitions: Schema, required: bool
) -> Iterator[tuple[str, str]]:
    variants = list(_variants(field, definitions))
    yield name, _text(field, variants, definitions, required)
    for variant in variants:
        inner = variant
        if variant.get("type") == "array":
            name = name.removesuffix("[]") + "[]"
            inner = next(_variants(variant.get("items", {}), definitions))
        for key, own in inner.get("properties", {}).items():
            needed = key in inner.get("required", ())
            yield from _texts(f"{name}.{key}", own, definitions, needed)


def _text(field: Schema, variants: list[Schema], definitions: Schema, required: bool) -> str:
    """The description, the choices, and whether a value is needed."""
    said = [str(field.get("description") or _first(variants, "description"))]
    if choices := list(_choices(variants, definitions)):
        said.append(f"One of {', '.join(map(str, choices))}.")
    default = field.get("default")
    if required:
        said.append("Required.")
    elif default not in _NOTHING and not isinstance(default, dict):
        said.append(f"Default: {default if isinstance(default, str) else json.dumps(default)}.")
    return " ".join(part for part in said if part)


def _first(variants: list[Schema], key: str) -> str:
    return next((variant[key] for variant in variants if variant.get(key)), "")


def _choices(variants: list[Schema], definitions: Schema) -> Iterator[Any]:
    for variant in variants:
        yield from variant.get("enum", ())
        if variant.get("type") == "array":
            yield from _choices(list(_variants(variant.get("items", {}), definitions)), definitions)


def _settings(
    prefix: str, values: Mapping[str, Any], field: Schema, definitions: Schema
) -> Iterator[tuple[str, Any, str]]:
    variants = list(_variants(field, definitions))
    for key, value in values.items():
        own = _field(key, values, variants)
        if isinstance(value, Mapping):
            yield from _settings(f"{prefix}{key}.", value, own, definitions)
        else:
            own = {**own, "default": None}  # the value stands next to the text
            text = _text(own, list(_variants(own, definitions)), definitions, required=False)
            yield f"{prefix}{key}", value, text


def _field(key: str, values: Mapping[str, Any], variants: list[Schema]) -> Schema:
    """The schema of a field in the variant that the values are of, or of a mapping's entries."""
    owners = [v["properties"] for v in variants if key in v.get("properties", {})]
    if names := [own[key]["const"] for own in owners if "const" in own[key]]:
        return {**owners[0][key], "enum": names}  # the field that tells variants apart
    for own in owners:
        if all(
            values.get(name) == field["const"] for name, field in own.items() if "const" in field
        ):
            return dict(own[key])
    entries = (v["additionalProperties"] for v in variants if "additionalProperties" in v)
    return next((dict(entry) for entry in entries if isinstance(entry, Mapping)), {})


def _refuse(name: str, value: Any, field: Schema, definitions: Schema) -> None:
    variants = list(_variants(field, definitions))
    if isinstance(value, list | tuple):
        for variant in variants:
            for item in value if variant.get("type") == "array" else ():
                _refuse(name, item, variant.get("items", {}), definitions)
    elif isinstance(value, Mapping):
        fields = {k: own for v in variants for k, own in v.get("properties", {}).items()}
        for key, own in value.items() if fields else ():
            if key not in fields:
                raise UserError(unknown(f"field of {name}", key, fields))
            _refuse(f"{name}.{key}", own, fields[key], definitions)
    elif isinstance(value, str) and all("enum" in variant for variant in variants):
        choices = [str(choice) for variant in variants for choice in variant["enum"]]
        if choices and value not in choices:
            raise UserError(unknown(name, value, choices))


def _variants(field: Schema, definitions: Schema) -> Iterator[Schema]:
    """The alternatives of a field, references followed."""
    parts = [*field.get("allOf", ()), *field.get("anyOf", ()), *field.get("oneOf", ())]
    if "$ref" in field:
        yield from _variants(definitions[field["$ref"].rpartition("/")[2]], definitions)
    elif parts:
        for part in parts:
            yield from _variants(part, definitions)
    else:
        yield field
