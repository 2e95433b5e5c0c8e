"""Register the deployments of prefect.yaml that are missing or of another version of the code.
Values that people set in the UI stay.

The version of a deployment ends in a digest of its entry, its places, and the code that its form is
made from. A deployment of that version is left alone.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from deployments.errors import UserError
from deployments.stack.settings import PREFECT_YAML, prefect_command, project_file
from storage.tables.keys import content_key, sha256_hex

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse

ROOMS = ("flows", "tasks", "models", "storage")
"""Packages that forms are made from."""

PLACES = ("CIRFLOW_HOME", "CIRFLOW_HEAVY_POOL")
"""Environment variables that prefect.yaml asks for."""


def register_deployments(
    client: SyncPrefectClient, environment: Mapping[str, str], say: Callable[[str], None]
) -> None:
    """Make the deployments that are missing, and bring older ones to this version.

    A deployment that exists keeps its parameters, schedules, tags, limit and job variables.

    Args:
        client: A client of the server.
        environment: Names the server, CIRFLOW_HOME and CIRFLOW_HEAVY_POOL.
        say: Shows a line to the user.

    Raises:
        UserError: Prefect refused one of them.
    """
    file = project_file(PREFECT_YAML)
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    code = _digest_of_code(file.parent)
    entries = [_versioned(entry, content["pull"], environment, code) for entry in _entries(content)]
    there = _read(client, [entry["name"] for entry in entries])
    todo = [
        _kept(entry, there[entry["name"]]) if entry["name"] in there else entry
        for entry in entries
        if entry["name"] not in there or there[entry["name"]].version != entry["version"]
    ]
    if todo:
        say(f"registering {', '.join(entry['name'] for entry in todo)}")
        _deploy({**content, "deployments": todo}, file.parent, environment)


def offer_choices(client: SyncPrefectClient, root: str, home: Path) -> None:
    """Offer in the forms what exists under a root and in the folder that runs work in."""
    from flows.choices import choices_of
    from flows.form_choices import refresh_forms

    refresh_forms(client, choices_of(root, home))


def _entries(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = content["deployments"]
    return entries


def _versioned(
    entry: dict[str, Any], pull: object, environment: Mapping[str, str], code: str
) -> dict[str, Any]:
    places = {name: environment.get(name) for name in PLACES}
    digest = content_key({"entry": entry, "pull": pull, "places": places, "code": code})
    return {**entry, "version": f"{entry['version']}+{digest[:8]}"}


def _digest_of_code(project: Path) -> str:
    files = [file for room in ROOMS for file in sorted((project / room).rglob("*.py"))]
    return sha256_hex(b"".join(file.read_bytes() for file in files))


def _read(client: SyncPrefectClient, names: list[str]) -> dict[str, DeploymentResponse]:
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName

    named = DeploymentFilter(name=DeploymentFilterName(any_=names))
    return {found.name: found for found in client.read_deployments(deployment_filter=named)}


def _kept(entry: dict[str, Any], there: DeploymentResponse) -> dict[str, Any]:
    """The entry with values that people may have set; Prefect keeps those that it does not name."""
    left = ("schedules", "concurrency_limit")
    kept = {key: value for key, value in entry.items() if key not in left}
    kept |= {"parameters": there.parameters, "tags": there.tags, "paused": there.paused}
    limit, options = there.global_concurrency_limit, there.concurrency_options
    if limit is not None:
        strategy = {"collision_strategy": options.collision_strategy.value} if options else {}
        kept["concurrency_limit"] = {"limit": limit.limit, **strategy}
    return kept


def _deploy(content: dict[str, Any], project: Path, environment: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / PREFECT_YAML
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        done = subprocess.run(
            prefect_command("--no-prompt", "deploy", "--all", "--prefect-file", str(file)),
            env=dict(environment),
            cwd=project,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise UserError(
            f"prefect deploy failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}\n"
            "If it says that parameters which were set in the UI no longer fit, set them "
            "there again, or delete the deployment, and repeat the command"
        )
