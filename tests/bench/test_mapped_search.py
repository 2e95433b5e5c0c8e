"""The bench of mapped searches, in small: it finds what bare searches find."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.mark.parametrize("queries", [1, 16])
def test_lists_are_those_of_bare_products(queries: int, tmp_path: Path) -> None:
    from bench.mapped_search import Files, measure

    files = Files(tmp_path)
    files.write(3000)
    found = measure(files, queries, 3000, turns=1)
    assert found["same"] == 1.0
    assert set(found["medians"]) >= {"bare", "ours"}
