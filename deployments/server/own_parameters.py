"""What a flow of the project says against its parameters before it looks at any file.

An image of the server may hold this package alone: then the form's schema is all that is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def own_faults(entrypoint: str, values: Mapping[str, Any]) -> list[Any]:
    """What is wrong with parameters, as Prefect's UI reads it; empty where nothing is.

    What exists is not asked for: it may be made before the run begins, or lie on another host.

    Args:
        entrypoint: The deployment's, `flows.MODULE.FLOW`.
        values: All parameters of the run.
    """
    try:
        from deployments.commands.run import FLOWS
        from deployments.flow_parameters import read
        from flows.profiles import PROFILES, ProfileError, resolve_profile
    except ModuleNotFoundError:
        return []
    from pydantic import ValidationError

    asked = (e for e in FLOWS.values() if f"{e.module}.{e.function}" == entrypoint)
    if (entry := next(asked, None)) is None:
        return []  # a flow of somebody else
    try:
        parameters = read(entry.request(), values)
    except ValidationError as error:
        return _by_parameter(error)
    profile = parameters.get("profile")
    if profile not in PROFILES:
        return []  # a file, which may lie on another host
    said = ""
    for settings in _settings(parameters):
        try:
            resolve_profile(profile, settings)
            return []
        except ProfileError as error:
            said = said or str(error)
    return [{"property": "settings", "errors": [said]}]


def _by_parameter(error: Any) -> list[Any]:
    from models.settings import fault_in_words

    told: dict[str, list[str]] = {}
    for fault in error.errors():
        told.setdefault(str(fault["loc"][0]), []).append(fault_in_words(fault))
    return [{"property": name, "errors": said} for name, said in told.items()]


def _settings(parameters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The settings with the form's choices on top; whose captioner is chosen, the flow knows."""
    from flows.forms import Captioner, Clip, Work

    for captioner in ("captioner", "instructcir.captioner"):
        made = dict(parameters.get("settings") or {})
        for form in parameters.values():
            if isinstance(form, Captioner):
                made |= form.settings(captioner)
            elif isinstance(form, Clip | Work):
                made |= form.settings()
        yield made
