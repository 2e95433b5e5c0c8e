"""Plausible mistakes are answered with a remedy, before Prefect or a model is imported."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.deployments.mistakes import MISTAKES, NO_KEYS, surroundings, write_files

HEAVY = ("prefect", "torch", "torchvision", "transformers", "open_clip", "lightning")

PROGRAM = f"""
import contextlib, io, json, os, sys
from deployments.cli import main
answers = []
for arguments, environment in json.loads(sys.stdin.read()):
    os.environ.update(environment)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code
    for name in environment:
        del os.environ[name]
    heavy = [name for name in {HEAVY!r} if name in sys.modules]
    answers.append([status, said.getvalue(), heavy])
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str, list[str]]]:
    """Status, answer and heavy imports so far, of every mistake in one process."""
    folder = tmp_path_factory.mktemp("mistakes") / "work"
    write_files(folder)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([(mistake.arguments, mistake.environment) for mistake in MISTAKES]),
        cwd=folder,
        env=surroundings(folder) | NO_KEYS,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return [(status, said, heavy) for status, said, heavy in json.loads(done.stdout)]


@pytest.mark.parametrize("place", range(len(MISTAKES)), ids=lambda i: MISTAKES[i].command[:60])
def test_the_answer_names_the_remedy(answers: list[tuple[int, str, list[str]]], place: int) -> None:
    mistake = MISTAKES[place]
    status, said, heavy = answers[place]
    assert status == 2, said
    assert "Traceback" not in said
    assert [word for word in mistake.said if word not in said] == [], said
    assert heavy == []


def test_the_check_sees_what_is_imported() -> None:
    """An import that only a good request reaches is seen by the same means."""
    code = f"import prefect, sys; print([n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "prefect" in done.stdout


def test_a_flow_takes_what_its_request_takes() -> None:
    import inspect

    from deployments.commands.run import FLOWS

    for entry in FLOWS.values():
        flow, request = entry.flow(), entry.request()
        taken = [
            str(inspect.signature(each, eval_str=True).parameters) for each in (flow.fn, request)
        ]
        assert taken[0] == taken[1]
        assert inspect.getdoc(flow.fn) == inspect.getdoc(request)
