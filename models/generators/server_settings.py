"""Which OpenAI-compatible server answers, and how patient its client is.

The API key is not a setting: it is read from the environment, so that no key can reach a log, a
flow parameter or a table. Nothing here but `model` and `identity` enters an identity.
"""

from __future__ import annotations

import socket
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field

from models.engine_settings import EngineSettings
from models.protocols import EngineUnavailable

ServerApi: TypeAlias = Literal["chat", "completions"]
"""Which endpoint prompts are sent to."""


class ServerSettings(EngineSettings):
    """An OpenAI-compatible server, such as vLLM."""

    model: str
    """The name that the server serves; on vLLM also that of a LoRA adapter."""
    base_url: str = ""
    """Root of the server's API, for example http://localhost:8000/v1."""
    identity: str = ""
    """Known facts of the served weights (revision, adapter hash, dtype); they enter the identity of
    all that is made."""
    concurrency: int = Field(32, ge=1)
    """Requests in flight."""
    timeout: float = Field(120.0, gt=0)
    """Seconds in which a reply must be complete."""
    connect_seconds: float = Field(5.0, gt=0)
    """Seconds to wait for a connection."""
    transport_retries: int = Field(3, ge=0)
    """Retries of the client after transport faults (408, 429, 5xx, resets)."""
    attempts: int = Field(3, ge=1)
    """Times that a question is asked whose answer is invalid, or during which the server is
    gone."""
    health_wait_seconds: float = Field(300.0, ge=0)
    """Seconds that a server may take to come back."""
    health_poll_seconds: float = Field(2.0, gt=0)
    """Seconds between two looks at the server's /health."""
    breaker_errors: int = Field(8, ge=1)
    """Equal failures in a row, of whatever kind, after which the run is given up."""
    reply_model: str = ""
    """The name that the server's replies carry, where it is another than `model`; a date or tag
    behind it needs no mention."""
    api_key_env: str = Field("OPENAI_API_KEY", pattern=r"^[A-Z0-9_]*API_KEY$")
    """Name of the environment variable that holds the API key, if the server wants one. It ends in
    API_KEY: a run cannot have other secrets of its machine sent to an address."""

    @property
    def title(self) -> str:
        """Engine and model."""
        return f"{self.engine} {self.model.rstrip('/').rpartition('/')[2]}"

    @property
    def where(self) -> str:
        """The server, in words."""
        return f"the LLM server at {self.base_url}"

    @property
    def away(self) -> str:
        """What is said of a server that does not answer."""
        return f"{self.where} does not answer; start it or correct base_url"

    def require_host(self) -> None:
        """Refuse a server that does not answer, refuses the key or does not serve the model.

        Where nobody listens, its client is not imported: it takes a second.

        Raises:
            ValueError: `base_url` is not an address.
            EngineUnavailable: Saying what is wrong and what to do.
        """
        self.require_address()
        place = urlsplit(self.base_url)
        port = place.port or {"http": 80, "https": 443}[place.scheme]
        try:
            socket.create_connection((place.hostname, port), self.connect_seconds).close()
        except (OSError, UnicodeError) as error:  # the latter: no name that a host can have
            raise EngineUnavailable(self.away) from error
        from models.generators.background_loop import BackgroundLoop
        from models.generators.openai_session import open_session

        with BackgroundLoop() as loop, open_session(loop, self):
            pass  # opening a session is the check

    def require_address(self) -> None:
        """Refuse to load without a server.

        Raises:
            ValueError: `base_url` is not an address.
        """
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must start with http:// or https://, not {self.base_url!r}")
        try:
            place = urlsplit(self.base_url)
            is_whole = bool(place.hostname) and place.port != 0
        except ValueError:  # a port that is not a number
            is_whole = False
        if not is_whole:
            raise ValueError(
                f"base_url={self.base_url!r} names no server; give one such as "
                "http://localhost:8000/v1"
            )
