"""Where the service listens, who may ask it, and how much."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from deployments.errors import UserError
from deployments.hosts import EVERYWHERE, is_loopback, web_address
from deployments.server.guard import Names, names
from models.spelling import agreed

if TYPE_CHECKING:
    from tasks.settings import Profile

TOKEN_VARIABLE: Final = "CIRFLOW_SERVICE_TOKEN"
SHORTEST_TOKEN: Final = 16


@dataclass(frozen=True)
class Limits:
    """What one request, and one client, may ask for.

    Attributes:
        body_bytes: Bytes of a request's body; more is refused without reading it.
        pixels: Width x height of an uploaded picture.
        k: Images of a search.
        batch: Searches of one batch.
        rate: Searches a second and client, in the long run.
        burst: Searches that a client may send at once.
        uploads: Uploaded bytes that are kept in memory; the oldest go first.
    """

    body_bytes: int = 32 * 2**20
    pixels: int = 40_000_000
    k: int = 200
    batch: int = 64
    rate: float = 100.0
    burst: int = 1000
    uploads: int = 256 * 2**20


@dataclass(frozen=True)
class ServiceSettings:
    """One service.

    Attributes:
        profile: Models, and the root whose galleries are searched.
        host: Address that it listens on.
        port: Its port.
        names: NAME:PORT under which other machines reach it without a proxy.
        origin: Its web address behind a proxy; empty without one.
        token: What a client must send; empty: nothing, on loopback alone.
        limits: What a request may ask for.
        chosen: How the profile was chosen, as words of a command line.
        warm: Whether galleries and models are loaded before they are asked for.
        fault_of: What went wrong beside the service with a gallery; empty where nothing did.
    """

    profile: Profile
    host: str = "127.0.0.1"
    port: int = 8600
    names: tuple[str, ...] = ()
    origin: str = ""
    token: str = field(default="", repr=False)
    limits: Limits = Limits()
    chosen: tuple[str, ...] = ()
    warm: bool = False
    fault_of: Callable[[str], str] = lambda gallery: ""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    @property
    def url(self) -> str:
        """Its address for a browser on this machine."""
        return self.origin or web_address(self.host, self.port)

    @property
    def allowed(self) -> Names:
        """The names under which it answers.

        Raises:
            UserError: a name without a port, or an origin that is not an address.
        """
        unnamed = self.is_loopback or self.host in EVERYWHERE
        own = () if unnamed else (web_address(self.host, self.port)[len("http://") :],)
        try:
            return names(self.port, (*own, *self.names), [self.origin] if self.origin else [])
        except ValueError as error:
            raise UserError(str(error)) from error

    def check(self, prefix: str = "--") -> None:
        """Refuse settings that are not safe, or of no use.

        Args:
            prefix: How options for other machines begin on the command line in question.

        Raises:
            UserError: other machines reach it and no token is set, a token is short, a name is
                not one that browsers send, or none is given for all addresses of this machine.
        """
        _ = self.allowed
        given = [f"--host {self.host}"] if not self.is_loopback else []
        given += [f"{prefix}name {name}" for name in self.names]
        given += [f"{prefix}origin {self.origin}"] if self.origin else []
        if given and not self.token:
            raise UserError(
                f"other machines can reach the service ({' '.join(given)}): set {TOKEN_VARIABLE} "
                f"to a secret of {SHORTEST_TOKEN} characters or more, which browsers are then "
                "asked for as a password, or stay on 127.0.0.1"
                + (" (or leave the service out: --no-service)" if prefix != "--" else "")
            )
        if self.token and len(self.token) < SHORTEST_TOKEN:
            raise UserError(
                f"{TOKEN_VARIABLE} has {len(self.token)} {agreed(len(self.token), 'character')}; "
                f"give {SHORTEST_TOKEN} or more"
            )
        if self.host in EVERYWHERE and not (self.names or self.origin):
            raise UserError(
                f"{self.host} stands for all addresses of this machine and names none: say how "
                f"others reach the service ({prefix}name NAME:PORT, or {prefix}origin https://NAME "
                "behind a proxy)"
            )


def token_of_environment() -> str:
    """The token that clients must send; empty where none is set."""
    return os.environ.get(TOKEN_VARIABLE, "")
