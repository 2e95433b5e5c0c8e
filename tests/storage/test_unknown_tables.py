"""A key that no table has is answered with the keys that exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.locations.location import Location
from storage.tables.finding import find_table
from storage.tables.specs import UnknownTable
from storage.tables.table import load_table, open_table


def test_an_unknown_key_is_answered_with_those_there_are(tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    with pytest.raises(UnknownTable, match=r"no captions of the key 'abcd'; it holds none\. "):
        load_table(location, "captions", "abcd")
    made = [open_table(location, "captions", {"producer": f"p{i}"}).spec_key for i in range(10)]
    with pytest.raises(FileNotFoundError) as refused:
        load_table(location, "captions", "abcd")
    said = str(refused.value)
    assert said.startswith(f"{location} holds no captions of the key 'abcd'; it holds ")
    assert f"{', '.join(sorted(made)[:8])} and 2 more. " in said
    assert "`cirflow cache ls`" in said
    assert "root=DIR" in said


def test_a_reader_may_ask_whether_a_table_is_there(tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    assert find_table(location, "captions", "abcd") is None
    made = open_table(location, "captions", {"producer": "p"})
    found = find_table(location, "captions", made.spec_key)
    assert found is not None
    assert found.spec == made.spec
