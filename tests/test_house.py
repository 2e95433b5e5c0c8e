"""Laws of the house that import-linter cannot see, read from the source alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

ROOMS: Final = ("deployments", "embedded_world", "flows", "models", "storage", "tasks")
GLUE: Final = ("flows", "tasks")
ARITHMETIC: Final = frozenset({"numpy", "scipy", "torch", "torchvision"})
LONGEST: Final = 500
"""Lines of a module."""

ALLOWED: Final[Mapping[str, str]] = {}
"""Module of flows or tasks -> why it imports a library for arithmetic."""


def modules(repository: Path, *rooms: str) -> Iterator[Path]:
    for room in rooms:
        yield from sorted((repository / room).rglob("*.py"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Top packages of all imports, inside functions too, but for annotations (TYPE_CHECKING)."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imported(ast.Module([other], []))
        elif isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]
        else:
            yield from imported(node)


def test_models_compute_and_tasks_glue(repository: Path) -> None:
    found = {
        str(path.relative_to(repository))
        for path in modules(repository, *GLUE)
        if ARITHMETIC & set(imported(ast.parse(path.read_text("utf-8"))))
    }
    assert not found - ALLOWED.keys(), "move what computes into models, or name a reason in ALLOWED"
    assert not ALLOWED.keys() - found, "these need no exception any more"


@pytest.mark.parametrize(
    ("source", "packages"),
    [
        ("import numpy as np", ["numpy"]),
        ("from torch.nn import functional", ["torch"]),
        ("def f():\n    if x:\n        import torch.cuda", ["torch"]),
        ("if TYPE_CHECKING:\n    import numpy\nelse:\n    import scipy.stats", ["scipy"]),
        ("class A:\n    def f(self):\n        from torchvision.io import read", ["torchvision"]),
    ],
)
def test_imports_are_found_wherever_they_stand(source: str, packages: list[str]) -> None:
    assert list(imported(ast.parse(source))) == packages


def test_packages_import_nothing(repository: Path) -> None:
    """Importing one module of a room must not load its neighbours."""
    for path in modules(repository, *ROOMS):
        if path.name == "__init__.py":
            names = set(imported(ast.parse(path.read_text("utf-8"))))
            assert not names, f"{path.relative_to(repository)} imports {', '.join(sorted(names))}"


def test_a_module_reads_on_a_few_screens(repository: Path) -> None:
    lengths = {
        path: len(path.read_text("utf-8").splitlines()) for path in modules(repository, *ROOMS)
    }
    assert len(lengths) > 100
    assert not {path.name: lines for path, lines in lengths.items() if lines > LONGEST}
