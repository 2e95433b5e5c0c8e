"""List, check, mend and clear what is stored: captions, edits, features, scores, collections.

  ls      every table with its rows
  verify  every file under the root: what is damaged or lost, what it costs, and the repair
  repair  mends what can be derived, puts the rest aside (nothing is deleted), and says what the
          next run makes again
  clean   removes staged files, marks, files put aside, and derived matrices and indexes (the next
          search makes them again) that are older than a day; in this user's cache folder also
          those of other roots, which may be gone, after 30 days

The status is 0 if all is well, 1 if something is damaged or lost (for repair: still)."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from deployments.errors import UserError
from deployments.place import add_place, reachable_root
from models.spelling import agreed, unknown

if TYPE_CHECKING:
    from storage.checks.findings import Findings
    from storage.locations.location import Location

_SHOWN = 10
_TAKEN_BY = {
    "table": ("ls", "verify"),
    "quarantine": ("verify",),
    "dry_run": ("clean",),
}
"""Option -> the actions that take it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("action", choices=("ls", "verify", "repair", "clean"))
    add_place(parser)
    parser.add_argument("--table", default="", help="ls, verify: only tables of this name")
    parser.add_argument(
        "--quarantine",
        action="store_true",
        help="verify: put broken parts aside, so that the next run of their flow makes the rows",
    )
    parser.add_argument("--dry-run", action="store_true", help="clean: only say what would go")
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Do one of the actions."""
    from storage.locations.location import Location

    for option, actions in _TAKEN_BY.items():
        if getattr(arguments, option) and arguments.action not in actions:
            raise UserError(
                f"--{option.replace('_', '-')} belongs to `cirflow cache {actions[-1]}`; "
                f"`cirflow cache {arguments.action}` does not take it, and nothing was done"
            )
    location = Location(reachable_root(arguments))
    action = {"ls": _list, "verify": _verify, "repair": _repair, "clean": _clean}
    return action[arguments.action](location, arguments)


def _list(location: Location, arguments: argparse.Namespace) -> int:
    from storage.tables.listing import list_tables

    there = list_tables(location)
    tables = [each for each in there if arguments.table in ("", each.name)]
    if arguments.json:
        keep = ("name", "spec_key", "parts", "rows", "bytes", "unreadable", "fault")
        shown = [{k: getattr(t, k) for k in keep} | {"spec": t.spec} for t in tables]
        print(json.dumps(shown, indent=1))
        return 0
    if not there:
        print(f"no tables at {location}")
    elif not tables:
        names = ", ".join(sorted({each.name for each in there}))
        print(f"no table {arguments.table!r} at {location}; there are: {names}")
    for table in tables:
        size = f"{table.bytes / 2**20:.1f} MiB"
        broken = f"  {table.unreadable} unreadable" if table.unreadable else ""
        print(
            f"{table.name}/{table.spec_key}  {table.rows} {agreed(table.rows, 'row')}  "
            f"{table.parts} {agreed(table.parts, 'part')}  {size}  "
            f"{table.spec.get('producer', '')}{table.fault}{broken}"
        )
    return 0


def _verify(location: Location, arguments: argparse.Namespace) -> int:
    from storage.checks.findings import as_json
    from storage.checks.root import check_root
    from storage.tables.table import PART_FILE

    found = check_root(location)
    if arguments.table:
        _require_table(location, arguments.table, found)
    problems: list[dict[str, Any]] = []
    for fault in found.faults:
        table, _, name = fault.path.rpartition("/")
        if arguments.table and arguments.table not in fault.path.split("/"):
            continue
        part = name if PART_FILE.fullmatch(name) else ""
        done = fault.mend() if arguments.quarantine and part else ""
        problems.append({"table": table, "part": part, **as_json(fault), "done": done})
    if arguments.json:
        print(json.dumps({**_as_json(found), "problems": problems}, indent=1))
        return 1 if problems else 0
    for each in problems:
        print(f"{location.join(each['path'])}: {each['what']}")
        print(f"  costs:  {each['costs']}")
        print(f"  {'done:   ' + each['done'] if each['done'] else 'repair: ' + each['repair']}")
    _print_rest(found)
    print(
        f"{found.files} {agreed(found.files, 'file')}, "
        f"{found.tables} {agreed(found.tables, 'table')} read, "
        f"{len(problems)} {agreed(len(problems), 'problem')}"
    )
    if problems and not arguments.quarantine:
        print(f"`cirflow cache repair --root {location}` does all of these repairs")
    return 1 if problems else 0


def _require_table(location: Location, name: str, found: Findings) -> None:
    """Refuse a name that neither a folder nor a lost file has: nothing would be wrong with it."""
    from storage.tables.listing import list_tables

    paths = [*location.list(name), *(fault.path for fault in found.faults)]
    if any(name in path.split("/") for path in paths):
        return
    known = sorted({each.name for each in list_tables(location)})
    raise UserError(f"{unknown('table', name, known)}, at {location}")


def _repair(location: Location, arguments: argparse.Namespace) -> int:
    from storage.checks.findings import as_json
    from storage.checks.root import repair_root

    mended, found = repair_root(location)
    if arguments.json:
        done = [{**as_json(each.fault), "done": each.done} for each in mended]
        left = [as_json(fault) for fault in found.faults]
        print(json.dumps({**_as_json(found), "repairs": done, "problems": left}, indent=1))
        return 1 if found.faults else 0
    for each in mended:
        print(f"{location.join(each.fault.path)}: {each.fault.what}")
        print(f"  done: {each.done}")
    if found.unrecorded:
        files = agreed(
            len(found.unrecorded), "file of earlier versions was", "files of earlier versions were"
        )
        print(f"{len(found.unrecorded)} {files} taken into the manifest")
    for fault in found.faults:
        print(f"left: {location.join(fault.path)}: {fault.what}; {fault.repair}")
    print(
        f"{found.files} {agreed(found.files, 'file')}, "
        f"{len(mended)} {agreed(len(mended), 'repair')}, "
        f"{len(found.faults)} {agreed(len(found.faults), 'problem')} left"
    )
    return 1 if found.faults else 0


def _clean(location: Location, arguments: argparse.Namespace) -> int:
    from storage.checks.cleaning import DAY, MONTH, clean, removable
    from tasks.galleries import cached_matrix_homes, matrix_homes

    ages = dict.fromkeys(cached_matrix_homes(), MONTH)
    ages |= dict.fromkeys([location, *matrix_homes(location)], DAY)
    remove = removable if arguments.dry_run else clean
    gone = [(kind, home, entry) for home, age in ages.items() for kind, entry in remove(home, age)]
    if arguments.json:
        files = [
            {
                "kind": kind,
                "path": entry.path if home == location else home.join(entry.path),
                "bytes": entry.size,
            }
            for kind, home, entry in gone
        ]
        print(json.dumps({"removed": not arguments.dry_run, "files": files}, indent=1))
        return 0
    for kind, home, entry in gone:
        print(f"{home.join(entry.path)}  {entry.size} {agreed(entry.size, 'byte')}  {kind}")
    size = sum(entry.size for _, _, entry in gone) / 2**20
    verb = "would be removed" if arguments.dry_run else "removed"
    print(f"{len(gone)} {agreed(len(gone), 'file')} older than a day {verb}, {size:.1f} MiB")
    return 0


def _as_json(found: Findings) -> dict[str, Any]:
    keep = ("files", "tables", "unrecorded", "left_over", "others")
    return {name: getattr(found, name) for name in keep}


def _print_rest(found: Findings) -> None:
    if found.left_over:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.left_over.items()))
        print(f"left over: {kinds}; `cirflow cache clean` removes those older than a day")
    if number := len(found.unrecorded):
        them = agreed(number, "it", "them")
        print(
            f"{number} {agreed(number, 'good file is', 'good files are')} not in the manifest (an"
            f" earlier version made {them}, or its writer was killed); `cirflow cache repair`"
            f" takes {them} in"
        )
    if found.others:
        first = ", ".join(found.others[:_SHOWN])
        more = ", ..." if len(found.others) > _SHOWN else ""
        files = agreed(len(found.others), "file")
        print(f"{len(found.others)} {files} that cirflow does not check: {first}{more}")
