"""Forms that offer what exists: the drop-downs of deployments, brought up to date.

Prefect keeps the schema of a deployment's form. A field of `FIELDS` becomes a text with a
list of what exists beside it, so that a list which is behind refuses nothing. A field of several
names says in its text what exists: Prefect's UI shows alternatives in a list as bare JSON.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flows.choices import Choices, choices_of
from flows.profiles import resolve_profile
from models.protocols import Json

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

logger = logging.getLogger(__name__)

FIELDS: Final[Mapping[tuple[str, str], str]] = {
    ("", "collection"): "collection",
    ("", "collections"): "collection",
    ("", "mapping_captions"): "collection",
    ("", "folder"): "benchmark",
    ("", "triplets"): "triplets",
    ("", "profile"): "profile",
    ("BenchmarkChoice", "folder"): "benchmark",
    ("Backbone", "name"): "backbone",
    ("Backbone", "pretrained"): "tag",
    ("Backbone", "mapping"): "mapping",
    ("Clip", "name"): "backbone",
    ("Clip", "pretrained"): "tag",
    ("Vary", "networks"): "network",
    ("Vary", "triplets"): "triplets",
}
"""Group ("": the flow's own parameters) and field -> kind of choice."""

ADVANCED: Final = ("runs", "shard_size", "work", "allow_gaps", "ray", "options", "settings")
"""Parameters that stand last in every form, as its advanced part."""
LAST: Final = 1000
"""Added to the place of an advanced parameter."""

SHIPPED_TRIPLETS: Final = ("out/triplets/triplets.json", "triplets.json")
"""Values of the trainings in prefect.yaml, now and earlier, which need not exist: each run of
generate-triplets has a folder of its own."""
WHOLE: Final = ("triplets",)
"""Kinds whose choices are all that exist: a name that is gone is offered no longer."""

OFFERED, TYPED = "one that exists", "a name"
EXISTING: Final = " There are: "
SWITCHES: Final = {True: " Default: on.", False: " Default: off."}
"""What the text of a switch ends in: the UI tells its two states apart by a shade."""


def offering(
    schema: Mapping[str, Any], choices: Choices, given: Mapping[str, Any]
) -> dict[str, Any]:
    """A form's schema with what exists as choices, and its advanced part at the end.

    Args:
        schema: As Prefect keeps it, with or without earlier choices.
        choices: What exists.
        given: The deployment's own values, which are offered too.
    """
    made = {**schema, "properties": _fields("", schema.get("properties", {}), choices, given)}
    for name, own in made["properties"].items():
        if name in ADVANCED and own.get("position", LAST) < LAST:
            own |= {"position": own["position"] + LAST, "title": f"advanced: {name}"}
    definitions = {
        name: {**own, "properties": _fields(name, own["properties"], choices, {})}
        if "properties" in own
        else own
        for name, own in schema.get("definitions", {}).items()
    }
    return {**made, "definitions": definitions} if definitions else made


def _fields(
    group: str, fields: Mapping[str, Any], choices: Choices, given: Mapping[str, Any]
) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, field in fields.items():
        kind = FIELDS.get((group, name), "")
        own = given.get(name)
        made[name] = _choice(field, kind, choices.get(kind, ()), own) if kind else _plain(field)
    return made


def _plain(field: Mapping[str, Any]) -> dict[str, Any]:
    """A field that offers nothing; a switch says its default, those of a group too."""
    made = {**field}
    if "properties" in made:
        made["properties"] = {name: _plain(own) for name, own in made["properties"].items()}
    is_switch = made.get("type") == "boolean" and isinstance(made.get("default"), bool)
    said = SWITCHES[made["default"]] if is_switch else ""
    if said and not made.get("description", "").endswith(said.strip()):
        made["description"] = f"{made.get('description', '')}{said}".strip()
    return made


def _choice(
    field: Mapping[str, Any], kind: str, names: Iterable[str], given: Json
) -> dict[str, Any]:
    """A field as a choice between names and a text of its own."""
    if "items" in field:
        return _list(field, kind, names, given if isinstance(given, list) else [])
    own = [] if kind in WHOLE else [field.get("default"), given, *_offered(field)]
    kept = {key: value for key, value in field.items() if key not in ("type", "anyOf", "enum")}
    others = [each for each in field.get("anyOf", []) if each.get("type") != "string"]
    offered = list(dict.fromkeys(each for each in [*names, *own] if isinstance(each, str) and each))
    if not offered:
        text = {"type": "string"}
        return {**kept, "anyOf": [text, *others]} if others else {**kept, **text}
    listed = {"type": "string", "enum": offered, "title": OFFERED}
    # Prefect's UI shows any text by the first alternative: a list there would end typing at once.
    return {**kept, "anyOf": [{"type": "string", "title": TYPED}, listed, *others]}


def _list(
    field: Mapping[str, Any], kind: str, names: Iterable[str], given: Iterable[Json]
) -> dict[str, Any]:
    """A field of several typed names, whose text says which exist."""
    text, _, earlier = field.get("description", "").partition(EXISTING)
    own = [*given, *_offered(field["items"]), *earlier.removesuffix(".").split(", ")]
    offered = [*names, *([] if kind in WHOLE else own)]
    known = dict.fromkeys(each for each in offered if isinstance(each, str) and each)
    items = {key: value for key, value in field["items"].items() if key not in ("anyOf", "enum")}
    said = f"{text}{EXISTING}{', '.join(known)}." if known else text
    return {**field, "description": said, "items": {**items, "type": "string"}}


def _offered(field: Mapping[str, Any]) -> list[str]:
    """The names that a field offers already: other runs have other roots."""
    return [
        name
        for each in field.get("anyOf", [])
        if each.get("title") == OFFERED
        for name in each["enum"]
    ]


def refresh_forms(client: SyncPrefectClient, choices: Choices) -> list[str]:
    """Bring the forms of all deployments up to date; returns the names of those that changed."""
    from prefect.client.schemas.actions import DeploymentUpdate

    changed: list[str] = []
    for found in _deployments(client):
        schema = found.parameter_openapi_schema or {}
        given = with_latest_triplets(found.parameters, choices)
        made = offering(schema, choices, given)
        if made != schema or given != found.parameters:
            update = DeploymentUpdate(parameter_openapi_schema=made, parameters=given)
            client.update_deployment(found.id, update)
            changed.append(found.name)
    return changed


def with_latest_triplets(given: Mapping[str, Any], choices: Choices) -> dict[str, Any]:
    """A deployment's values; the shipped triplets give way to the latest ones that exist."""
    sets, own = choices.get("triplets", ()), given.get("triplets")
    if own not in SHIPPED_TRIPLETS or own in sets or not sets:
        return dict(given)
    return {**given, "triplets": sets[0]}


def _deployments(client: SyncPrefectClient) -> list[DeploymentResponse]:
    found: list[DeploymentResponse] = []
    while page := client.read_deployments(limit=200, offset=len(found)):
        found += page
    return [each for each in found if (each.entrypoint or "").startswith("flows.")]


def asked_root(given: Mapping[str, Any]) -> str:
    """The root that a run's parameters name: a flow that draws its own world has another."""
    profile = resolve_profile(given.get("profile") or "tiny", given.get("settings"))
    return profile.root


def offer_what_exists() -> None:
    """At the end of a flow that added something: offer it in the forms of its own server.

    A server that does not take it leaves the lists as they were; they also take typed names.
    """
    import httpx
    from prefect import runtime
    from prefect.client.orchestration import get_client
    from prefect.exceptions import PrefectHTTPStatusError

    if not runtime.deployment.id:
        return  # a command's own temporary server has no forms
    try:
        with get_client(sync_client=True) as client:
            root = asked_root(runtime.flow_run.parameters)
            refresh_forms(client, choices_of(root, Path.cwd()))
    except (httpx.TransportError, PrefectHTTPStatusError) as error:
        logger.warning("the forms do not offer it yet (%s); `cirflow up` brings them up", error)
