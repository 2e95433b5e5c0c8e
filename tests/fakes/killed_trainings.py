"""The same training twice: once undisturbed, once with SIGKILLs at random moments."""

from __future__ import annotations

import atexit
import functools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

if TYPE_CHECKING:
    from tasks.training.lightning_job import LightningJob

REPOSITORY = Path(__file__).resolve().parents[2]
COMPARED = ("model.safetensors", "target.safetensors", "combiner.safetensors", "curves.csv")
"""Files that are equal to the byte, of those that a network has."""


class ForkedTrainings:
    """A process that forks trainings, and its log: a line for each step."""

    def __init__(self) -> None:
        """Start it; it imports what trainings need, for all that are to come."""
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name, "log")
        self._log.touch()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.reformulation_runs", str(self._log)],
            cwd=REPOSITORY,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PREFECT_LOGGING_LEVEL": "CRITICAL"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def run(self, job: LightningJob, kill: dict[str, float] | None = None) -> dict[str, Any]:
        """Train, killed at a moment or not; returns how the training ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"kind": job.KIND, "job": TypeAdapter(type(job)).dump_python(job, mode="json")}
        file = Path(self._folder.name, "job.json")
        file.write_text(json.dumps(asked))
        command = {"root": str(file), "workers": 1, "kill": kill}
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def steps(self) -> int:
        """Steps that were begun, of all trainings."""
        return len(self._log.read_text().split())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(120)
        self._folder.cleanup()


@functools.cache
def forked_trainings() -> ForkedTrainings:
    """One for all tests of this process: its imports cost more than most trainings."""
    made = ForkedTrainings()
    atexit.register(made.close)
    return made


def assert_kills_change_nothing(
    job: LightningJob, folder: Path, *, steps: int, kills: int, longest: int
) -> None:
    """Train in two roots; the weights and the curves of both must be the same to the byte.

    Args:
        job: What is trained; its root is replaced.
        folder: Where both roots are made.
        steps: Steps of stage one.
        kills: SIGKILLs, as long as the training has not ended.
        longest: Most steps that a killed training takes.
    """
    chance = random.Random(seed := random.SystemRandom().randrange(2**32))
    print(f"seed {seed}")  # shown when the test fails
    quiet, killed = (replace(job, root=str(folder / name)) for name in ("undisturbed", "killed"))
    trainings = forked_trainings()
    before = trainings.steps()
    outcome = trainings.run(quiet)
    assert outcome["ends"] == [0]
    for _ in range(kills):
        if killed.is_published:
            break
        moment = {
            "shards": chance.randint(0, longest),
            "seconds": chance.random() * outcome["seconds"] / steps,
        }
        assert trainings.run(killed, moment)["ends"] in ([-signal.SIGKILL], [0])
    assert trainings.run(killed)["ends"] == [0]
    first, second = (Path(each.root, each.folder) for each in (quiet, killed))
    names = [name for name in COMPARED if (first / name).exists()]
    assert {COMPARED[0], COMPARED[-1]} <= set(names)
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    # A step that was begun is taken again, unless its state was saved before the kill.
    assert trainings.steps() - before >= 2 * steps
