"""The benchmark of tables compares two forms that give the same."""

from __future__ import annotations

from pathlib import Path

import pytest

import bench.tables
from bench.tables import build, feature_table, main, plan, random_keys, vectors

COUNT = 1300


def test_both_forms_give_the_same(tmp_path: Path) -> None:
    build(str(tmp_path), COUNT)
    table, keys = feature_table(str(tmp_path), COUNT), random_keys(COUNT)
    assert keys.is_sorted()
    assert keys.n_unique() == COUNT
    assert plan(table, keys, naive=True) == plan(table, keys, naive=False)
    assert len(plan(table, keys, naive=False)) == 1  # thirteen rows are missing
    assert vectors(table, keys, naive=False) == pytest.approx(vectors(table, keys, naive=True))


@pytest.mark.slow  # fresh processes
def test_the_benchmark_runs_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.tables, "PLANNED", 10_000)
    assert len(main([COUNT], str(tmp_path))) == 3
