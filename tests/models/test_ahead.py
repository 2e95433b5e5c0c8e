"""Work ahead of its reader: in order, bounded, and without threads left behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from models.ahead import MOST_THREADS, in_order, worker_threads


def test_results_come_in_order_from_threads_that_work_at_a_time() -> None:
    meeting = threading.Barrier(3, timeout=20)  # passes only where three work at once

    def work(item: int) -> int:
        meeting.wait()
        return item * item

    assert list(in_order(work, range(9), threads=3, ahead=6)) == [n * n for n in range(9)]


def test_no_more_is_begun_than_the_bound() -> None:
    fetched: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            fetched.append(number)
            yield number

    results = in_order(lambda item: item, items(), threads=2, ahead=5)
    assert next(results) == 0
    assert len(fetched) == 5
    assert next(results) == 1
    assert len(fetched) == 6
    results.close()


def test_closing_drops_what_has_not_begun_and_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    began = threading.Semaphore(0)
    go_on = threading.Event()
    done: list[int] = []

    def work(item: int) -> int:
        began.release()
        if item:
            go_on.wait(20)
        done.append(item)
        return item

    results = in_order(work, range(50), threads=2, ahead=20)
    assert next(results) == 0
    for _ in range(3):  # 0, and the two that wait
        assert began.acquire(timeout=20)
    threading.Timer(0.05, go_on.set).start()
    results.close()
    assert sorted(done) == [0, 1, 2]
    assert {t for t in threading.enumerate() if "ahead" in t.name} <= before


def test_an_error_is_raised_where_its_result_is_taken() -> None:
    results = in_order(lambda item: 6 // item, [3, 2, 0, 1], threads=2, ahead=4)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not [t for t in threading.enumerate() if "ahead" in t.name]


def test_one_thread_for_each_core_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    assert (worker_threads(), worker_threads(3)) == (6, 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(200)), raising=False)
    assert (worker_threads(), worker_threads(64)) == (MOST_THREADS, 64)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert worker_threads() == 5
