"""A process that reads parts and ends at once ends cleanly: no thread of pyarrow needs Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from storage.locations.location import Location
from storage.tables.table import Shard, Table, open_table

READ = """
import sys
from storage.locations.location import Location
from storage.tables.table import load_table
table = load_table(Location(sys.argv[1]), "captions", sys.argv[2])
assert table.verify() == []
table.read()
"""


@pytest.fixture
def table(location: Location) -> Table:
    """Many parts, so that many threads have just read one."""
    table = open_table(location, "captions", {"producer": "test"})
    for number in range(40):
        shard = Shard.of([f"{number}-{row}" for row in range(8)])
        texts = [["a"]] * 8
        table.publish(
            shard,
            table.rows(
                image_id=shard.members,
                captions=texts,
                n=[1] * 8,
                raw=texts,
                status=["ok"] * 8,
                reason=[""] * 8,
            ),
        )
    return table


@pytest.mark.slow
def test_many_readers_end_cleanly(table: Table) -> None:
    """Before, three of eight ended with "terminate called without an active exception"."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", READ, table.location.root, table.spec_key]
    ended = [
        subprocess.run(command, env=environment, capture_output=True, check=False)
        for _ in range(20 if table.location.is_local else 10)
    ]
    assert {each.returncode for each in ended} == {0}
