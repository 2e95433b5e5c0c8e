"""The API as a page, written from its OpenAPI description (`/openapi.json`)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from deployments.service.pages import page

router = APIRouter(include_in_schema=False)


@router.get("/docs")
def api(request: Request) -> HTMLResponse:
    """Every operation with its parameters, and every record."""
    found = request.app.openapi()
    operations = [
        {"method": method.upper(), "path": path, **operation}
        for path, methods in found["paths"].items()
        for method, operation in methods.items()
    ]
    records: dict[str, Any] = found.get("components", {}).get("schemas", {})
    return page(
        request,
        "api.html",
        title="API",
        operations=operations,
        records=dict(sorted(records.items())),
        kind=_kind,
    )


def _kind(schema: dict[str, Any]) -> str:
    """The type of a value, in a word or two."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(_kind(each) for each in choices)
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"name -> {_kind(schema['additionalProperties'])}"
    return str(schema.get("type", "anything"))
