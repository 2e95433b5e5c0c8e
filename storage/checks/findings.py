"""What a check of a root finds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from storage.locations.damage import TRIES_ON_S3
from storage.locations.location import Entry, Location


@dataclass(frozen=True)
class Fault:
    """A file that is damaged or lost.

    Attributes:
        path: relative to the root.
        what: is wrong with it.
        costs: what does not work, or is made again.
        repair: what `mend` will do.
        mend: does it, and returns what was done.
    """

    path: str
    what: str
    costs: str
    repair: str
    mend: Callable[[], str]


@dataclass
class Findings:
    """The result of a check.

    Attributes:
        files: number of files that were checked.
        tables: number of tables among them.
        faults: damaged and lost files.
        unrecorded: good files that the manifest does not name: those of an earlier version, and
            those whose writer was killed before their record.
        left_over: kind -> number of files that `cirflow cache clean` removes once they are old.
        others: files that are none of ours, which nobody reads.
    """

    files: int = 0
    tables: int = 0
    faults: list[Fault] = field(default_factory=list)
    unrecorded: list[str] = field(default_factory=list)
    left_over: dict[str, int] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Listed:
    """One listing of a root. Files may come and go meanwhile: losses are looked at once more."""

    location: Location
    entries: tuple[Entry, ...]

    def below(self, folder: str) -> list[Entry]:
        """The entries of one folder."""
        return [entry for entry in self.entries if entry.path.startswith(f"{folder}/")]


def fault_in(location: Location, path: str, fault_of: Callable[[bytes], str]) -> str:
    """Read a file and return its fault, or ""; on S3 a fault must come up every time.

    Raises:
        FileNotFoundError: it is gone.
    """
    what = ""
    for _ in range(1 if location.is_local else TRIES_ON_S3):
        what = fault_of(location.read_bytes(path))
        if not what:
            break
    return what


@contextlib.contextmanager
def going_on(found: Findings, path: str) -> Iterator[None]:
    """Go on with the next file where one cannot be read, or is gone meanwhile."""
    try:
        yield
    except FileNotFoundError:
        pass
    except OSError as error:
        what = f"it cannot be read: {error}"
        repair = "none: mend the access to it, then check again"
        costs = "whatever reads it stops with this error"
        found.faults.append(Fault(path, what, costs, repair, lambda: "left as it is"))


def as_json(fault: Fault) -> dict[str, str]:
    """A fault as plain JSON."""
    return {name: getattr(fault, name) for name in ("path", "what", "costs", "repair")}
