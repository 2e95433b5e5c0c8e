"""An empty database of Prefect, made once: its migrations cost five seconds of a core."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path


def migrated(folder: Path) -> Path:
    """File of the database; the first process that asks for it makes it in the folder."""
    from filelock import FileLock

    file, aside = folder / "prefect-empty.db", folder / "prefect-empty.aside"
    with FileLock(folder / "prefect-empty.lock"):
        if not file.exists():
            own = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{aside}"}
            subprocess.run(
                [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"],
                env=os.environ | own,
                check=True,
                capture_output=True,
            )
            with closing(sqlite3.connect(aside)) as database:
                database.execute("pragma wal_checkpoint(truncate)")  # all is in one file
            aside.rename(file)
    return file
