"""Base job templates of process, docker and kubernetes pools.

The templates are JSON files next to this one: Prefect takes JSON, and a team can edit it
(`prefect work-pool update cpu --base-job-template FILE`). `gpu.json` holds the values in which the
gpu pool differs from the cpu pool. What decides which program runs, as whom, and with which files
is fixed in a pool's template and not a variable of a single run: `closed` sees to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("templates")
POOL_TYPES = ("process", "docker", "kubernetes")
"""Kinds of work pools that the project has templates for."""


FIXED = frozenset(
    {
        *("command", "working_dir"),
        *("image", "registry_credentials", "volumes", "networks", "network_mode", "privileged"),
        *("container_create_kwargs", "namespace", "service_account_name", "annotations"),
        *("cluster_config",),
    }
)
"""Job variables with which a run could start other programs, or reach what it may not."""

ENVIRONMENT = "env"
"""Stays a variable, since Prefect allows references to Secret blocks nowhere else, of one value."""


@dataclass(frozen=True)
class Images:
    """Container images of flow runs.

    Attributes:
        cpu: Image of the cpu pool's runs.
        gpu: Image of the gpu pool's runs.
    """

    cpu: str = ""
    gpu: str = ""


def job_template(pool_type: str, pool: str, images: Images) -> dict[str, Any]:
    """The base job template of one pool; empty for process pools, which close Prefect's own.

    Args:
        pool_type: process, docker or kubernetes.
        pool: cpu or gpu.
        images: Images that the runs start from.

    Raises:
        ValueError: there is no such template, or runs in containers without an image.
    """
    if pool_type not in POOL_TYPES:
        raise ValueError(f"no pool type {pool_type!r}; there are {', '.join(POOL_TYPES)}")
    if pool_type == "process":
        return {}
    image = images.gpu if pool == "gpu" else images.cpu
    if not image:
        raise ValueError(
            f"runs of the {pool} pool start in containers: name the image that holds cirflow"
        )
    template = _read(f"{pool_type}.json")
    other = _read("gpu.json")[pool_type] if pool == "gpu" else {}
    _set_defaults(template["variables"]["properties"], {**other, "image": image})
    return closed(template)


def closed(template: Mapping[str, Any]) -> dict[str, Any]:
    """A template whose runs may set only what it names and FIXED does not.

    Default values of FIXED move into the configuration: what a pool's owner chose stays.

    Args:
        template: A base job template of any kind of pool.
    """
    variables = dict(template["variables"]["properties"])
    fixed = {name: variables.pop(name) for name in sorted(FIXED & variables.keys())}
    values = {name: variable.get("default") for name, variable in fixed.items()}
    configuration = _filled(template["job_configuration"], values)
    if ENVIRONMENT in variables:
        variables[ENVIRONMENT] = with_environment(variables, {})
    required = [name for name in template["variables"].get("required", []) if name in variables]
    schema = {**template["variables"], "properties": variables, "additionalProperties": False}
    return {
        **template,
        "variables": schema | ({"required": required} if "required" in schema else {}),
        "job_configuration": configuration,
    }


def with_environment(variables: Mapping[str, Any], added: Mapping[str, str]) -> dict[str, Any]:
    """The variable `env` with more in it, beside what it has; a run can ask for that alone."""
    variable = variables[ENVIRONMENT]
    value = {**added, **(variable.get("default") or {})}
    return {**variable, "default": value, "const": value}


_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def _filled(value: Any, values: Mapping[str, Any]) -> Any:
    """A configuration with values in their places; entries whose value is None are left out."""
    if isinstance(value, dict):
        filled = {key: _filled(inner, values) for key, inner in value.items()}
        return {key: filled[key] for key in value if filled[key] is not None or value[key] is None}
    if isinstance(value, list):
        return [_filled(inner, values) for inner in value]
    if isinstance(value, str) and (whole := _PLACEHOLDER.fullmatch(value)):
        return values.get(whole[1]) if whole[1] in values else value
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda found: str(values.get(found[1], found[0])), value)
    return value


def _set_defaults(properties: dict[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        properties[name]["default"] = value


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return content
