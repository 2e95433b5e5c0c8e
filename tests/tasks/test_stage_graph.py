"""Order and identity of stages follow from what they read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from tasks.stages.stage import Stage, Tick, in_order, inputs_of

asked: list[str] = []


class Named(Stage):
    """A stage that is known by a name and reads others in every way that a stage can."""

    table_name: ClassVar[str] = "captions"
    producer: ClassVar[str] = "tests/named/1"

    name: str
    first: Named | None = None
    others: Mapping[str, Named] = {}

    @property
    def title(self) -> str:
        """Its name."""
        return self.name

    def identity(self) -> dict[str, Any]:
        """Its name and what it reads; every call is noted."""
        asked.append(self.name)
        return {"name": self.name, "reads": [each.spec_key for each in self.inputs.values()]}

    def planned(self) -> list[str]:
        """Nothing."""
        return []

    def rows(self, members: Sequence[str], tick: Tick) -> pa.Table:
        """Nothing is ever made."""
        raise AssertionError(members)


def stage(root: Path, name: str, **inputs: Any) -> Named:
    return Named(root=str(root), name=name, **inputs)


def test_inputs_are_the_stages_in_fields_and_in_mappings(tmp_path: Path) -> None:
    a, b = stage(tmp_path, "a"), stage(tmp_path, "b")
    c = stage(tmp_path, "c", first=a, others={"x": b, "y": a})
    assert c.inputs == {"first": a, "others.x": b, "others.y": a}
    assert a.inputs == {}


def test_everything_that_is_read_comes_first_and_once(tmp_path: Path) -> None:
    a, b = stage(tmp_path, "a"), stage(tmp_path, "b")
    middle = stage(tmp_path, "middle", first=a)
    late = stage(tmp_path, "late", others={"m": middle, "b": b})
    equal_to_a = stage(tmp_path, "a")
    last = stage(tmp_path, "last", first=late, others={"a": equal_to_a})
    names = [each.name for each in in_order([last, middle]) if isinstance(each, Named)]
    assert names == ["a", "b", "middle", "late", "last"]
    assert [each.title for each in inputs_of([last])] == ["a", "b", "middle", "late"]


def test_identity_is_computed_once_and_again_for_a_changed_copy(tmp_path: Path) -> None:
    asked.clear()
    a = stage(tmp_path, "a")
    b = stage(tmp_path, "b", first=a)
    keys = (a.spec_key, b.spec_key, b.spec_key, a.table().spec_key, b.table().spec_key)
    assert asked == ["a", "b"]
    assert keys == (a.spec_key, b.spec_key, b.spec_key, a.spec_key, b.spec_key)
    other = b.model_copy(update={"name": "other"})
    assert other.spec_key not in keys
    assert asked == ["a", "b", "other"]
