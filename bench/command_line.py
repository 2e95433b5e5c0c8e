"""The command line of a benchmark: its docstring is the help."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def command_line(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows the docstring as it is written."""
    return argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def whole_number(text: str) -> int:
    """A whole number above zero.

    Raises:
        argparse.ArgumentTypeError: It is not one.
    """
    return int(_above_zero(text, int, "a whole number"))


def some_seconds(text: str) -> float:
    """Seconds, above zero.

    Raises:
        argparse.ArgumentTypeError: They are not.
    """
    return _above_zero(text, float, "a number of seconds")


def _above_zero(text: str, kind: Callable[[str], float], what: str) -> float:
    try:
        number = kind(text)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what} above zero")
    return number
