"""Mistakes on the command line of the served search end in one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.served_search import asked
from tests.fakes.postgres import free_port

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "report.png"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({3: "nope.jpg"}, "nope.jpg: no such file or directory"),
        ({2: "999999999"}, "'999999999' is not a process"),
        ({4: "many"}, "'many' is not a number of searches"),
        ({}, "no service answers at http://127.0.0.1"),
        ({0: "127.0.0.1:8600"}, "no service answers at 127.0.0.1:8600"),
        ({0: "http://[::1"}, "no service answers at http://[::1"),
    ],
)
def test_a_mistake_is_one_sentence(
    changed: dict[int, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = str(os.getpid())
    words = [f"http://127.0.0.1:{free_port()}", "photos", own, str(PICTURE), "10"]
    for place, word in changed.items():
        words[place] = word
    assert asked(words) == 2
    answer = capsys.readouterr().err
    assert answer.startswith(f"served_search: {said}")
    assert answer.count("\n") == 1


def test_too_few_words_bring_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert asked(["http://127.0.0.1:8600"]) == 2
    assert "URL GALLERY PID PICTURE" in capsys.readouterr().err
