"""The command line of a benchmark: its docstring is the help."""

from __future__ import annotations

import argparse


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
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return number


def some_seconds(text: str) -> float:
    """A number above zero.

    Raises:
        argparse.ArgumentTypeError: It is not one.
    """
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above zero")
    return number
