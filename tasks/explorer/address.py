"""Name of the variable that holds the service's address."""

from __future__ import annotations

from typing import Final

SERVICE_VARIABLE: Final = "CIRFLOW_SERVICE"
"""Web address of `cirflow serve` as browsers reach it, such as http://127.0.0.1:8600."""
