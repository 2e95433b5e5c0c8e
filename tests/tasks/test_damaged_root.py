"""Random damages of a filled root: each is found and mended, or shown to be harmless.

`CIRFLOW_DAMAGES` is their number; the seeds, one after the other, go through all kinds of files and
of damages. `python -m tests.fakes.damaged_root 500` does the same and prints the counts.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fakes.damaged_root import DAMAGES, KINDS, World, damage_once, make_world

COUNT = int(os.environ.get("CIRFLOW_DAMAGES", "60"))
EVERY = len(KINDS) * len(DAMAGES)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The undamaged root."""
    return make_world(tmp_path_factory.mktemp("damaged"))


# Fewer damages than there are pairs of kinds are spread over all of them.
@pytest.mark.slow
@pytest.mark.parametrize("seed", [n if COUNT >= EVERY else n * 7 % EVERY for n in range(COUNT)])
def test_a_damage_is_mended_or_harmless(world: World, seed: int) -> None:
    outcome = damage_once(world, seed)
    assert outcome.good, outcome


@pytest.mark.slow
def test_the_undamaged_root_has_no_faults(world: World) -> None:
    from storage.checks.root import check_root
    from storage.locations.location import Location

    found = check_root(Location(str(world.root)))
    assert (found.faults, found.others) == ([], [])
    assert world.before["ledger"]
    assert Path(world.root, "manifest").is_dir()
