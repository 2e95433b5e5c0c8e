"""Errors that are shown to a person in a line or two, and what they say."""

from __future__ import annotations

import os
import sys
from typing import Final

from models.plain_text import escaped


class UserError(Exception):
    """A fault that the user can correct; it is shown without a traceback."""


_OURS: Final = (KeyError, IndexError, UnicodeError)
"""Lookup and value errors that are faults of this program."""


def told(error: Exception) -> str:
    """What a person reads of an error, in printable characters; empty for a fault of the program.

    Such a fault needs its traceback.
    """
    if _is_of_s3(error):
        from storage.locations.access import s3_fault

        return escaped(s3_fault(error))
    if said := refused_variables(error):
        return escaped(said)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return escaped(f"{error.filename}: {error.strerror.lower()}")
    if isinstance(error, _OURS):
        return ""
    if isinstance(error, UserError | ValueError | LookupError | OSError) or _is_unavailable(error):
        return escaped(str(error))
    return ""


def _is_of_s3(error: Exception) -> bool:
    """Whether the client of S3 raised it, or s3fs in the client's place."""
    causes = (error, error.__cause__)
    return any(type(cause).__module__.startswith("botocore.") for cause in causes)


def refused_variables(error: Exception) -> str:
    """The variables of the environment that Prefect refuses; empty for any other error."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not isinstance(error, pydantic.ValidationError):
        return ""
    refused = [
        f"{name}={value!r}: {fault['msg'][:1].lower()}{fault['msg'][1:]}"
        for fault in error.errors()
        for name, value in os.environ.items()
        if name.startswith("PREFECT_") and value == str(fault["input"])
    ]
    return "; ".join([*refused, "unset it, or give it a right value"]) if refused else ""


def _is_unavailable(error: Exception) -> bool:
    """Whether an engine or a training cannot be used now; their modules are imported by then."""
    known = (("models.protocols", "EngineUnavailable"), ("tasks.training.folder", "TrainingHeld"))
    return any(
        isinstance(error, getattr(sys.modules[module], name))
        for module, name in known
        if module in sys.modules
    )
