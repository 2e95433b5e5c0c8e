"""`make test` and `make test-long` share out all tests: each runs in one of the two."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import chain, combinations
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression

COMMAND = re.compile(
    r'^\t\$\(PYTEST\)(?: --no-loadscope-reorder| --durations=\d+)* -m "([^"]+)"$', re.MULTILINE
)
"""A line of the Makefile that runs tests. Nothing but `-m` may choose among them."""


def test_each_test_belongs_to_one_of_the_two_commands(
    repository: Path, pytestconfig: pytest.Config
) -> None:
    makefile = (repository / "Makefile").read_text()
    selections = [Expression.compile(found) for found in COMMAND.findall(makefile)]
    assert len(selections) == makefile.count("\t$(PYTEST)") == 2
    # Markers are strict: a test carries some of these and no others.
    markers = [re.split(r"\W", line)[0] for line in pytestconfig.getini("markers")]
    assert "slow" in markers
    for carried in chain.from_iterable(
        combinations(markers, size) for size in range(len(markers) + 1)
    ):
        selected = [
            each.evaluate(lambda name, carried=carried, **_: name in carried) for each in selections
        ]
        assert selected.count(True) == 1, carried


@pytest.mark.parametrize(
    "option", ["--ignore", "--deselect", " -k", "norecursedirs", "python_files"]
)
def test_nothing_else_leaves_tests_out(repository: Path, option: str) -> None:
    for name in ("Makefile", "pyproject.toml"):
        assert option not in (repository / name).read_text()


@pytest.mark.slow
def test_collection_loads_no_model_library(repository: Path) -> None:
    """Who runs one test does not wait for what the others import."""
    code = (
        "import pytest, sys\n"
        "assert pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider']) == 0\n"
        "heavy = ('torch', 'transformers', 'open_clip', 'lightning', 'peft', 'prefect', 'openai')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True
    )
    assert run.stdout.splitlines()[-1] == "[]", run.stdout[-2000:] + run.stderr
