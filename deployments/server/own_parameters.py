"""What a flow of the project says against its parameters before it looks at any file.

An image of the server may hold this package alone: then the form's schema is all that is known.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
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
        from deployments.flow_parameters import refusals
        from flows.profiles import PROFILES, ProfileError, resolve_profile
    except ModuleNotFoundError:
        return []
    asked = (e for e in FLOWS.values() if f"{e.module}.{e.function}" == entrypoint)
    if (entry := next(asked, None)) is None:
        return []  # a flow of somebody else
    request = entry.request()
    if found := refusals(request, values):
        return [{"property": name, "errors": said} for name, said in found.items()]
    default = inspect.signature(request).parameters.get("profile")
    profile = values.get("profile", default and default.default)
    try:
        if profile in PROFILES:  # a file of another name may lie on another host
            resolve_profile(profile, values.get("settings"))
    except ProfileError as error:
        return [{"property": "settings", "errors": [str(error)]}]
    return []
