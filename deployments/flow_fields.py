"""What a flow's parameters may be, by the names that `--set` takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]


def field_lines(flow: Any) -> Iterator[str]:
    """A line for each parameter with a choice, and for each field of a group."""
    schema = flow.parameters.model_dump()
    for name, field in schema["properties"].items():
        yield from _lines(name, field, schema["definitions"])


def _lines(name: str, field: Schema, definitions: Schema) -> Iterator[str]:
    for variant in _variants(field, definitions):
        if "enum" in variant:
            yield f"{name}: one of {', '.join(map(str, variant['enum']))}"
        elif variant.get("type") == "array":
            yield from _lines(f"{name}[]", variant.get("items", {}), definitions)
        for key, inner in variant.get("properties", {}).items():
            if text := inner.get("description"):
                yield f"{name}.{key}: {text}"
            yield from _lines(f"{name}.{key}", inner, definitions)


def _variants(field: Schema, definitions: Schema) -> Iterator[Schema]:
    """What a field may be, references followed."""
    if "$ref" in field:
        yield from _variants(definitions[field["$ref"].rpartition("/")[2]], definitions)
    elif parts := [*field.get("allOf", ()), *field.get("anyOf", ())]:
        for part in parts:
            yield from _variants(part, definitions)
    else:
        yield field
