"""Names of hosts."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that stand for all of the machine's -> where it reaches itself."""


def is_loopback(host: str) -> bool:
    """Whether a server that listens there can be reached from its own machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def web_address(host: str, port: int) -> str:
    """Where a browser on this machine finds what listens on a host and port."""
    reached = EVERYWHERE.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"
