"""What the terminal says while a stage runs."""

from __future__ import annotations

import pytest


def test_the_time_left_leaves_the_loading_of_a_model_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    from deployments import display

    now = 100.0
    monkeypatch.setattr(display.time, "monotonic", lambda: now)
    monkeypatch.setattr(display, "console", Console(force_terminal=False, width=100))
    with display.stage_display("captions", 1000, 0) as advance:
        now += 30  # the model is loaded
        advance(10)
        now += 20
        advance(400)
    said = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert said == [
        "running captions (1000 to make)",
        "10 of 1000",
        "410 of 1000, 20.0/s, 30 s left",
    ]
