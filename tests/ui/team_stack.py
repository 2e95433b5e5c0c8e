"""The stack of a team that has been at work: what it has scored, and what it has captioned."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedded_world.benchmarks import WorldSize, write_world
from tests.fakes.drawn import draw_folder
from tests.fakes.live_stack import LiveStack, clean_environment
from tests.fakes.postgres import free_port

EVALUATED = ("image-text-sum", "cvsi")
"""Methods that the team has scored."""
PHOTOS = 6
"""Images that it has captioned."""
SMALL = WorldSize(6, 2, 2, distractors=4, siblings=2, fashion_siblings=2)


@contextmanager
def team_stack(folder: Path, repository: Path, database: Path) -> Iterator[LiveStack]:
    """Bring a stack up, evaluate a benchmark on it and caption photographs; down at the end."""
    write_world(folder / "benchmarks", SMALL, seed=5)
    draw_folder(folder / "photos", PHOTOS, seed=41)
    stack = LiveStack(folder, clean_environment(repository), free_port(), free_port())
    stack.settings.home.mkdir(parents=True)
    shutil.copyfile(database, stack.settings.home / "prefect.db")
    try:
        stack.up()
        stack.cirflow("ingest", "photos", "--name", "photos")
        evaluation = {"benchmark": "cirr", "folder": "benchmarks/cirr", "methods": EVALUATED}
        with stack.client() as client:
            rerun = client.read_deployment_by_name("rerun-backbone/rerun-backbone")
            form = rerun.parameter_openapi_schema or {}
            assert "photos" in str(form["properties"]["mapping_captions"])  # ingest offered it
            runs = [
                stack.start(client, "score-benchmark/score-benchmark", evaluation),
                stack.start(
                    client, "backfill-captions/backfill-captions", {"collection": "photos"}
                ),
            ]
            for run in runs:
                ended = stack.wait_for(client, run)
                assert ended.state_name == "Completed", ended.state
        yield stack
    finally:
        stack.cirflow("down")
