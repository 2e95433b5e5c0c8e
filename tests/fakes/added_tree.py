"""A copy of the source tree to which something is added as CONTRIBUTING says, and run there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
ADDITIONS: Final = REPOSITORY / "tests" / "additions"
PACKAGES: Final = ("flows", "tasks", "models", "storage", "deployments", "embedded_world")
LINKED: Final = "models/embedded"
"""The shipped checkpoints, which are linked instead of copied."""

PREFECT_HOME: Final = ".prefect"


@dataclass(frozen=True)
class AddedTree:
    """The copy, and what is done to it.

    Attributes:
        folder: Where the packages lie.
    """

    folder: Path

    def add_file(self, name: str, place: str) -> None:
        """Put `tests/additions/NAME` at a place in the tree; nothing may lie there."""
        target = self.folder / place
        assert not target.exists(), place
        shutil.copyfile(ADDITIONS / name, target)

    def add_line(self, file: str, after: str, line: str) -> None:
        """Put one line below another, which must be in the file exactly once."""
        path = self.folder / file
        lines = path.read_text().splitlines()
        assert lines.count(after) == 1, f"{after!r} is in {file} {lines.count(after)} times"
        lines.insert(lines.index(after) + 1, line)
        path.write_text("\n".join(lines) + "\n")

    def python(self, *arguments: str) -> str:
        """Run Python in the copy, away from the installed packages; returns what it printed."""
        home = self.folder / PREFECT_HOME
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(self.folder), "PREFECT_HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
        return done.stdout

    def cirflow(self, *arguments: str) -> str:
        """Run the command line of the copy; returns what it printed."""
        return self.python("-m", "deployments.cli", *arguments)


def copy_tree(folder: Path, database: Path) -> AddedTree:
    """Copy all packages' files that git knows or would know, with their contents of now.

    Args:
        folder: Where they go.
        database: An empty one for the Prefect of the copy.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        source, target = REPOSITORY / name, folder / name
        if name.startswith(f"{LINKED}/") or not source.is_file():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    (folder / PREFECT_HOME).mkdir()
    shutil.copyfile(database, folder / PREFECT_HOME / "prefect.db")
    (folder / LINKED).symlink_to(REPOSITORY / LINKED, target_is_directory=True)
    return AddedTree(folder)
