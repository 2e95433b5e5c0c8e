"""Base job templates of process, docker and kubernetes pools.

The templates are JSON files next to this one: Prefect takes JSON, and a team can edit it
(`prefect work-pool update cpu --base-job-template FILE`). `gpu.json` holds the values in which the
gpu pool differs from the cpu pool.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("templates")
POOL_TYPES = ("process", "docker", "kubernetes")
"""Kinds of work pools that the project has templates for."""


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
    """The base job template of one pool; empty for process pools, which keep Prefect's own.

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
    return template


def _set_defaults(properties: dict[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        properties[name]["default"] = value


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    return content
