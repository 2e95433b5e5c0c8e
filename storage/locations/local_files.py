"""What lies below a local folder: regular files, and what lies where a file or folder belongs.

A named pipe would be waited for, a broken link would seem to be nothing and yet keep its name taken
and a loop of links would end a listing. So they are listed, by their kind, and never opened.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from storage.locations.entries import STAGING, Entry

FILES = re.compile(r".+(\.json|\.parquet|\.safetensors|\.\d+-[0-9a-f]{32})")
"""Names that only files have (the last are records of the manifest): a folder of such a name stands
where a file belongs."""


A_FOLDER = "a folder"
CLOSED = "a folder that cannot be listed"


class OddFile(OSError):
    """What has the name of a file is something else; nothing was read or waited for."""


def require_regular(file: Path) -> None:
    """Refuse what is not a file, or a link to one.

    Raises:
        FileNotFoundError: there is nothing of that name.
        OddFile: it is something else.
    """
    odd = entry_of(file, file.name).odd
    if odd:
        raise OddFile(errno.EINVAL, f"it is not a file but {odd}", str(file))


def entry_of(file: Path, path: str) -> Entry:
    """One file, as it is listed; its size is 0 where it is not a regular one.

    Raises:
        FileNotFoundError: there is nothing of that name.
    """
    try:
        status = file.stat()
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ELOOP):
            raise
        status = file.lstat()  # of a link that leads nowhere; FileNotFoundError where there is none
    odd = _odd(status.st_mode)
    size = 0 if odd else status.st_size
    return Entry(path, size, str(status.st_mtime_ns), status.st_mtime, odd)


def walk(root: Path, prefix: str) -> Iterator[Entry]:
    """List a folder and all below it, links followed; files that vanish meanwhile are left out.

    Raises:
        PermissionError: the folder itself cannot be listed; one below it is an odd entry.
    """
    top = root / prefix
    try:
        status = top.stat()
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(status.st_mode):
        yield from _below(root, top, frozenset({(status.st_dev, status.st_ino)}))


def _below(root: Path, folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Entry]:
    for name in sorted(os.listdir(folder)):
        file = folder / name
        path = file.relative_to(root).as_posix()
        try:
            entry = entry_of(file, path)
            if entry.odd != A_FOLDER:
                yield entry
                continue
            status = file.stat()
            same = status.st_dev, status.st_ino
            if path == STAGING or same in above:  # a link that leads upwards
                continue
            if FILES.fullmatch(name):
                yield entry
            else:
                yield from _below(root, file, above | {same})
        except FileNotFoundError:
            continue
        except PermissionError:
            yield Entry(path, 0, "", odd=CLOSED)


def _odd(mode: int) -> str:
    """What something is, in words; empty for a regular file."""
    if stat.S_ISREG(mode):
        return ""
    if stat.S_ISDIR(mode):
        return A_FOLDER
    if stat.S_ISLNK(mode):
        return "a link that leads nowhere"
    return "a named pipe" if stat.S_ISFIFO(mode) else "a socket or device"
