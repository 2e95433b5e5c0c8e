"""Whether the hub that checkpoints come from answers; its own client tries for a minute a file."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from typing import Final

_SECONDS: Final = 5.0


class HubUnreachable(OSError):
    """A file is not on this machine, and the hub that has it does not answer."""


def require_hub(repository: str) -> None:
    """Refuse a download where the hub cannot be reached, before its client tries again and again.

    Args:
        repository: Hub id of what is to be fetched.

    Raises:
        HubUnreachable: Saying how the files get here otherwise.
    """
    if fault := hub_fault():
        raise HubUnreachable(
            f"{repository!r} is not on this machine and must be downloaded, but {fault}. Download "
            f"it where there is a network (hf download {repository}) and copy the hub's cache here "
            "(HF_HOME names its folder), or name a directory that holds its files"
        )


def hub_fault() -> str:
    """Why nothing can be fetched from the hub; empty where it answers, with whatever status."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE forbids downloads"
    if "all" in urllib.request.getproxies() or not ENDPOINT.startswith(("http://", "https://")):
        return ""  # urllib does not use such a proxy: the hub's client has to try
    try:
        with urllib.request.urlopen(
            urllib.request.Request(ENDPOINT, method="HEAD"), timeout=_SECONDS
        ):
            return ""
    except (urllib.error.HTTPError, http.client.HTTPException):
        return ""  # something answers: the hub's client says what is wrong with it
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            return ""  # the hub's client brings certificates of its own
        return f"{ENDPOINT} cannot be reached ({reason})"
