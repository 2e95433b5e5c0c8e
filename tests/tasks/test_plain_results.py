"""Nothing that lies in the result store can run code."""

from __future__ import annotations

import base64
import importlib
import json
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import grimp
import pytest
from prefect import Flow, Task, task
from prefect.cache_policies import NO_CACHE
from prefect.results import ResultRecord

from tasks import plain_results
from tasks.plain_results import PLAIN_JSON, NotPlain

PROJECT = Path(__file__).resolve().parents[2]
ROOMS = ("flows", "tasks")
HARMLESS = {"type": "json", "jsonlib": "json", "object_encoder": None, "object_decoder": None}
PLAIN = {**HARMLESS, "dumps_kwargs": {}, "loads_kwargs": {}}


class Intruder:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.mark,)


def pickled(mark: Path) -> str:
    return base64.encodebytes(pickle.dumps(Intruder(mark))).decode()


def tampered(how: str, result: str) -> bytes:
    record: dict[str, Any] = {"metadata": {"serializer": PLAIN}, "result": result}
    if how == "pickle is named":
        record["metadata"] = {"serializer": {"type": "pickle"}}
    elif how == "nothing is named":
        record["metadata"] = {}
    elif how == "pickle is named in the old place":
        record["serializer"] = {"type": "pickle"}
    elif how == "pickle is named twice":
        plain, twice = json.dumps(PLAIN), '"serializer": {"type": "pickle"}, "serializer"'
        return json.dumps(record).replace(f'"serializer": {plain}', f"{twice}: {plain}").encode()
    return json.dumps(record).encode()


@pytest.mark.parametrize(
    "how", ["pickle is named", "nothing is named", "pickle is named in the old place"]
)
def test_a_pickled_result_is_refused(how: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    record = tampered(how, pickled(mark))
    plain_results._deserialize(record)
    assert mark.exists(), "Prefect no longer unpickles: the narrowed reader can go"
    mark.rmdir()
    with pytest.raises(NotPlain):
        ResultRecord.deserialize(record, backup_serializer=PLAIN_JSON)
    assert not mark.exists()


def test_of_two_serializers_the_plain_one_reads(tmp_path: Path) -> None:
    record = tampered("pickle is named twice", "[1]")
    assert record.count(b'"serializer"') == 2
    assert ResultRecord.deserialize(record).result == [1]


@pytest.mark.parametrize(
    "named",
    [
        {**PLAIN, "object_decoder": "builtins.print"},
        {**PLAIN, "jsonlib": "pickle"},
        {"type": "compressed", "serializer": "pickle"},
        {"type": "compressed", "serializer": PLAIN, "compressionlib": "antigravity"},
    ],
)
def test_a_serializer_with_a_name_to_import_is_refused(named: dict[str, Any]) -> None:
    record = json.dumps({"metadata": {"serializer": named}, "result": "1"}).encode()
    with pytest.raises(NotPlain):
        ResultRecord.deserialize(record)


def test_a_record_in_two_files_and_bytes_that_are_no_record_are_refused(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(NotPlain):
        ResultRecord.deserialize_from_result_and_metadata(
            result=pickled(mark).encode(), metadata=json.dumps({"serializer": PLAIN}).encode()
        )
    for data in (pickled(mark).encode(), b"[]", b'{"metadata": null, "result": null}'):
        with pytest.raises(ValueError, match=r"Expecting value|stored result"):
            ResultRecord.deserialize(data, backup_serializer=PLAIN_JSON)
    assert not mark.exists()


@pytest.mark.prefect
def test_a_task_whose_record_was_tampered_with_runs_again(
    prefect_api: None, tmp_path: Path
) -> None:
    from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

    calls: list[int] = []

    @task(
        cache_key_fn=lambda context, parameters: "the-only-record",
        persist_result=True,
        result_serializer=PLAIN_JSON,
        cache_result_in_memory=False,
    )
    def count() -> dict[str, int]:
        calls.append(1)
        return {"calls": len(calls)}

    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "results"}):
        assert count() == count() == {"calls": 1}  # the record is used
        file = tmp_path / "results" / "the-only-record"
        assert json.loads(file.read_bytes())["metadata"]["serializer"] == PLAIN
        mark = tmp_path / "mark"
        file.write_bytes(tampered("pickle is named", pickled(mark)))
        assert count() == count() == {"calls": 2}
    assert not mark.exists()


# ------------------------------------------------------------------------- all flows and tasks


def found_in(rooms: Iterable[str]) -> Iterator[tuple[str, Flow[..., Any] | Task[..., Any]]]:
    """Every flow and task, with the module that makes it."""
    for room in rooms:
        for file in sorted((PROJECT / room).rglob("*.py")):
            name = ".".join(file.relative_to(PROJECT).with_suffix("").parts)
            for value in vars(importlib.import_module(name)).values():
                if isinstance(value, Flow | Task) and value.fn.__module__ == name:
                    yield name, value


def is_plain(made: Flow[..., Any] | Task[..., Any]) -> bool:
    """Whether nothing is left in the result store, or a key of ours and plain JSON."""
    if isinstance(made, Task) and made.cache_key_fn:
        return bool(made.persist_result) and made.result_serializer == PLAIN_JSON
    nothing = not made.persist_result and made.result_serializer is None
    return nothing and (isinstance(made, Flow) or made.cache_policy == NO_CACHE)


def test_flows_and_tasks_leave_plain_json_or_nothing_and_read_nothing_else() -> None:
    made = list(found_in(ROOMS))
    names = {value.name for _, value in made}
    assert {"run_shard", "plan_stage", "ingest_source", "backfill-captions", "demo"} <= names
    assert [value.name for _, value in made if not is_plain(value)] == []
    assert [value.name for _, value in made if value.result_storage] == []
    graph = grimp.build_graph(*ROOMS)
    careless = [
        name
        for name, _ in made
        if not graph.chain_exists(importer=name, imported=plain_results.__name__)
    ]
    assert careless == []
