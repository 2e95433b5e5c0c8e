"""Tables that an earlier version filled for the same stage, so that no model is asked again.

A new producer or a new field of an identity gives a stage another key. What the earlier table holds
was made from the same questions, and its raw replies can be read again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from storage.tables.schemas import OK
from storage.tables.table import SPEC_KEY, Table, load_table
from tasks.stages.stage import Stage

_VERSION: Final = re.compile(r"(.*)/(\d+)")


def earlier_rows(
    stage: Stage,
    members: Sequence[str],
    columns: Sequence[str],
    earlier: Callable[[], Sequence[Table]],
) -> dict[str, dict[str, Any]]:
    """Rows of earlier tables by key, of those members that the present table lacks.

    Members with a row in the present table are left out: they are being retried. An ok row wins
    over a failed one, and the newer producer over the older.

    Args:
        stage: The stage whose table is being filled.
        members: Keys of rows to be made.
        columns: Columns to read, next to key, status and reason.
        earlier: Gives the earlier tables (`earlier_tables`), once for all shards.
    """
    tried = set(stage.table().read(["status"], list(members))[stage.table().schema.key])
    wanted = [member for member in members if member not in tried]
    found: dict[str, dict[str, Any]] = {}
    for table in earlier() if wanted else ():
        for row in table.read([*columns, "status", "reason"], wanted).iter_rows(named=True):
            key = row[table.schema.key]
            if key not in found or (found[key]["status"] != OK and row["status"] == OK):
                found[key] = row
    return found


def earlier_tables(stage: Stage, checked: Sequence[str] = ()) -> list[Table]:
    """Tables of earlier producers whose specs say nothing that the stage's own contradicts.

    Fields that the present identity has and an earlier one lacks are what has been added since.

    Args:
        stage: The stage whose table is being filled.
        checked: Fields of the identity that need not agree: the caller compares rows.
    """
    producer = _VERSION.fullmatch(stage.producer)
    assert producer is not None, stage.producer
    present, skipped = json.loads(json.dumps(stage.spec)), {"producer", *checked}
    tables = []
    for spec_key in _spec_keys(stage):
        if spec_key == stage.spec_key:
            continue
        table = load_table(stage.location, stage.table_name, spec_key)
        made_by = _VERSION.fullmatch(str(table.spec.get("producer", "")))
        if (
            made_by
            and made_by[1] == producer[1]
            and int(made_by[2]) <= int(producer[2])
            and _agree(_without(table.spec, skipped), present)
        ):
            tables.append((int(made_by[2]), table))
    return [table for _, table in sorted(tables, key=lambda each: -each[0])]


def _spec_keys(stage: Stage) -> Iterator[str]:
    for path in stage.location.list(stage.table_name):
        key, _, file = path.removeprefix(f"{stage.table_name}/").partition("/")
        if file == "spec.json" and SPEC_KEY.fullmatch(key):
            yield key


def _without(spec: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in spec.items() if name not in names}


def _agree(earlier: Any, present: Any) -> bool:
    """Whether every field of an earlier value has the same value now."""
    if isinstance(earlier, Mapping) and isinstance(present, Mapping):
        return all(name in present and _agree(v, present[name]) for name, v in earlier.items())
    return bool(earlier == present)
