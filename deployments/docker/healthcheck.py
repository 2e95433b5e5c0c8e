"""Ask an address for its health: exit status 0 if it answers 200. Images hold this file alone."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request


def main(address: str) -> int:
    """Return 0 if the address answers with status 200 within four seconds."""
    try:
        with urllib.request.urlopen(address, timeout=4) as reply:
            return 0 if reply.status == 200 else 1
    except (urllib.error.URLError, OSError):
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
