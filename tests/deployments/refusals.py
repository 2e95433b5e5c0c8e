"""What a command says when it refuses."""

from __future__ import annotations

import pytest

from deployments.cli import main


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command says on standard error when it refuses."""
    try:
        status = main(arguments)
    except SystemExit as end:
        status = int(end.code or 0)
    shown = capsys.readouterr()
    assert status == 2, shown
    assert shown.out == ""
    assert "Traceback" not in shown.err
    return shown.err
