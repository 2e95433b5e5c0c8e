"""Prefect stores no result of ours: the published files are the cache, and no record is read.

It does store what a failed run or task raised, whatever it is told; that is JSON and never pickle.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect import Flow, Task

PROJECT = Path(__file__).resolve().parents[2]
ROOMS = ("flows", "tasks")


def flows_and_tasks() -> Iterator[Flow[..., Any] | Task[..., Any]]:
    """Every flow and task of the project."""
    from prefect import Flow, Task

    for room in ROOMS:
        for file in sorted((PROJECT / room).rglob("*.py")):
            name = ".".join(file.relative_to(PROJECT).with_suffix("").parts)
            for value in vars(importlib.import_module(name)).values():
                if isinstance(value, Flow | Task) and value.fn.__module__ == name:
                    yield value


def test_no_flow_or_task_stores_a_result_or_looks_for_one() -> None:
    """A stored record may name pickle as its reader, and Prefect obeys the record."""
    from prefect import Flow, Task
    from prefect.cache_policies import NO_CACHE

    made = list(flows_and_tasks())
    names = {value.name for value in made}
    assert {"run_shard", "plan_stage", "ingest_source", "backfill-captions", "demo"} <= names
    assert {"train_network", "tune_rewriter", "train_reformulation_network"} <= names
    for value in made:
        assert not value.persist_result, value.name
        assert value.result_storage is None, value.name
        # Tasks write as their flow does.
        assert value.result_serializer == ("json" if isinstance(value, Flow) else None), value.name
        if isinstance(value, Task):
            assert value.cache_key_fn is None, value.name
            assert value.cache_policy == NO_CACHE, value.name
