"""The shipped text generators still pass their gates, and their records say that they did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from embedded_world.recipes.text_measures import TestSet

pytestmark = pytest.mark.slow


class Generator(NamedTuple):
    """A shipped text generator, and what its recipe asks of it."""

    folder: Path
    command: str
    gates: Mapping[str, float]
    sets: Sequence[TestSet]
    texts: int
    """Texts of each set in the small sample."""


@pytest.fixture(params=["llama", "llama_pointing"])
def generator(request: pytest.FixtureRequest, repository: Path) -> Generator:
    from embedded_world.recipes import pointing_generator, text_generator
    from embedded_world.recipes import pointing_measures as pointing
    from embedded_world.recipes import text_measures as plain

    folder = repository / "models" / "embedded" / request.param
    if request.param == "llama":
        return Generator(folder, text_generator.COMMAND, plain.GATES, plain.TEST_SETS, 150)
    sets = (*plain.TEST_SETS, *pointing.POINTING_SETS)
    return Generator(folder, pointing_generator.COMMAND, pointing.GATES, sets, 100)


def test_reduced_gates(generator: Generator) -> None:
    from embedded_world.recipes.text_measures import score
    from embedded_world.recipes.text_model import load

    model, tokenizer = load(generator.folder)
    tests = {test.name: test for test in generator.sets}
    for name, least in generator.gates.items():
        share = score(model, tokenizer, tests[name], generator.texts).share
        # Three standard errors of slack for the small sample.
        assert share >= least - 3 * (least * (1 - least) / generator.texts) ** 0.5, name


def test_the_record_says_how_it_was_made_and_that_the_gates_were_passed(
    generator: Generator,
) -> None:
    from embedded_world.recipes.text_measures import SAMPLES

    recipe = json.loads((generator.folder / "recipe.json").read_text())
    assert recipe["command"] == generator.command
    assert recipe["gates"]["passed"] is True
    rows = {row["name"]: row for row in recipe["gates"]["measures"]}
    passed = {name for name, row in rows.items() if row["gate"] is not None}
    assert passed == set(generator.gates)
    for name, least in generator.gates.items():
        assert rows[name]["share"] >= rows[name]["gate"] == least
        assert rows[name]["n"] >= SAMPLES
