"""Whether the hub that checkpoints come from answers, and has one of them.

Its own client tries for a minute a file, and the libraries that ask it take seconds to import.
"""

from __future__ import annotations

import http.client
import os
import ssl
import urllib.error
import urllib.request
from typing import Final

_SECONDS: Final = 5.0
_GATED: Final = (
    "{!r} is given to those alone who asked for it: do so on its page, and log in here "
    "(hf auth login)"
)


class HubUnreachable(OSError):
    """A file is not on this machine, and the hub that has it does not answer."""


class NotOnHub(HubUnreachable):
    """The hub answers that it has no such repository or revision, or gives it to others alone."""


def require_hub(repository: str, revision: str = "") -> None:
    """Refuse a download that the hub cannot give, before its client tries again and again.

    Args:
        repository: Hub id of what is to be fetched.
        revision: Of the repository.

    Raises:
        HubUnreachable: Saying how the files get here otherwise.
        NotOnHub: There is no such repository or revision.
    """
    if fault := hub_fault():
        raise HubUnreachable(
            f"{repository!r} is not on this machine and must be downloaded, but {fault}. Download "
            f"it where there is a network (hf download {repository}) and copy the hub's cache here "
            "(HF_HOME names its folder), or name a directory that holds its files"
        )

    _require_repository(repository, revision)


def _require_repository(repository: str, revision: str) -> None:
    """Refuse what the hub says it has not; every other answer is left to its client."""
    import httpx2
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        found = HfApi().model_info(repository, revision=revision or None, timeout=_SECONDS)
    except GatedRepoError as error:
        raise NotOnHub(_GATED.format(repository)) from error
    except RepositoryNotFoundError as error:
        raise NotOnHub(
            f"the hub has no {repository!r}, or does not show it to you: give ORGANISATION/NAME "
            "as its page has it, log in for a private one (hf auth login), or name a directory "
            "that holds its files"
        ) from error
    except RevisionNotFoundError as error:
        raise NotOnHub(
            f"{repository!r} has no revision {revision!r} on the hub; name a branch, a tag or a "
            "commit of its page, or none"
        ) from error
    except (httpx2.HTTPError, OSError, ValueError):
        return
    is_mirror = "HF_ENDPOINT" in os.environ  # which may have a token of its own
    if found.gated and get_token() is None and not is_mirror:
        raise NotOnHub(_GATED.format(repository))


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
