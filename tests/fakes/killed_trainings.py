"""The same training twice: once undisturbed, once with SIGKILLs at random moments."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

if TYPE_CHECKING:
    from tasks.training.lightning_job import LightningJob

REPOSITORY = Path(__file__).resolve().parents[2]
COMPARED = ("model.safetensors", "target.safetensors", "combiner.safetensors", "curves.csv")
"""Files that are equal to the byte, of those that a network has."""

Run = Callable[[str, dict[str, float] | None], dict[str, Any]]
"""(root, when to kill) -> how the training there ended."""


@contextmanager
def forked_trainings(job: LightningJob, log: Path) -> Iterator[Run]:
    """A process that forks trainings of a job; `log` gets a line for each step."""
    log.touch()
    arguments = [TypeAdapter(type(job)).dump_json(job).decode(), str(log), job.KIND]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.fakes.reformulation_runs", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PREFECT_LOGGING_LEVEL": "CRITICAL"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        commands, answers = process.stdin, process.stdout
        assert answers.readline() == "ready\n"

        def run(root: str, kill: dict[str, float] | None) -> dict[str, Any]:
            commands.write(json.dumps({"root": root, "workers": 1, "kill": kill}) + "\n")
            commands.flush()
            return json.loads(answers.readline())

        yield run
        commands.close()


def assert_kills_change_nothing(
    job: LightningJob, folder: Path, *, steps: int, kills: int, longest: int
) -> None:
    """Train in two roots; the weights and the curves of both must be the same to the byte.

    Args:
        job: What is trained; its root is replaced.
        folder: Where both roots and the log are made.
        steps: Steps of stage one.
        kills: SIGKILLs, as long as the training has not ended.
        longest: Most steps that a killed training takes.
    """
    log = folder / "log"
    chance = random.Random(seed := random.SystemRandom().randrange(2**32))
    print(f"seed {seed}")  # shown when the test fails
    quiet, killed = (replace(job, root=str(folder / name)) for name in ("undisturbed", "killed"))
    with forked_trainings(job, log) as run:
        outcome = run(quiet.root, None)
        assert outcome["ends"] == [0]
        for _ in range(kills):
            if killed.is_published:
                break
            moment = {
                "shards": chance.randint(0, longest),
                "seconds": chance.random() * outcome["seconds"] / steps,
            }
            assert run(killed.root, moment)["ends"] in ([-signal.SIGKILL], [0])
        assert run(killed.root, None)["ends"] == [0]
    first, second = (Path(each.root, each.folder) for each in (quiet, killed))
    names = [name for name in COMPARED if (first / name).exists()]
    assert {COMPARED[0], COMPARED[-1]} <= set(names)
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    # A step that was begun is taken again, unless its state was saved before the kill.
    assert len(log.read_text().split()) >= 2 * steps
