"""Command lines of benchmarks: each explains itself, and refuses in a line what it cannot use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench.command_line import command_line, some_seconds, whole_number

FOLDER = Path(__file__).parents[2] / "bench"
RUN = sorted(file.stem for file in FOLDER.glob("*.py") if "__main__" in file.read_text())


@pytest.mark.parametrize("name", [name for name in RUN if name != "served_search"])
def test_every_benchmark_reads_its_command_line(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text()
    assert "command_line(__doc__)" in text.partition('if __name__ == "__main__":')[2]


@pytest.mark.parametrize(
    ("kind", "text"),
    [(whole_number, each) for each in ("0", "-1", "1.5", "many", "")]
    + [(some_seconds, each) for each in ("0", "-1", "inf", "nan", "long", "")],
)
def test_other_words_are_refused(kind: type, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = command_line("What it does.\n\n    as it is written\n")
    parser.add_argument("number", type=kind)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args([f" {text}"])
    assert ended.value.code == 2
    assert f"' {text}' is not a " in capsys.readouterr().err
    assert "\n    as it is written\n" in parser.format_help()


def test_numbers_are_read() -> None:
    assert (whole_number("20"), some_seconds("0.5")) == (20, 0.5)


def test_a_benchmark_says_what_it_does_and_does_nothing() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "bench.tables", "--help"],
        cwd=FOLDER.parent, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert "python -m bench.tables [--sizes 10000 100000] [--root FOLDER]" in said
