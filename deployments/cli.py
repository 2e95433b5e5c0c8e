"""The command line. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import atexit
import gc
import importlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

from deployments.errors import told
from deployments.stopping import RESUMED, Stop, Stopped, stopped_by_signals
from models.redaction import redact, redact_error
from models.spelling import unknown

EPILOG = """\
first steps:
  cirflow demo                                  the whole story on drawn images, no download
  cirflow try ~/photos                          search your own pictures in a browser
  cirflow ingest ~/photos --name photos         a collection from a folder, tars, Parquet or s3://
  cirflow run embed-gallery --set collection=photos
  cirflow search --gallery photos --image a.jpg --text "the same in red"

evaluations:
  cirflow run score-benchmark --profile production --set benchmark=cirr --set folder=DIR
  cirflow leaderboard

help on one command: cirflow COMMAND --help. Checks of this machine: cirflow doctor."""


class Command(NamedTuple):
    """A subcommand.

    Attributes:
        module: In deployments.commands.
        help: One line.
        stopped: What to do after SIGTERM or Ctrl-C.
    """

    module: str
    help: str
    stopped: str = RESUMED


_WHOLE: Final = "nothing is left half done"
COMMANDS = {
    "demo": Command("demo", "run everything once on the embedded world and open the report"),
    "try": Command("try_", "search a folder of pictures in the first minute, in a browser"),
    "ingest": Command("ingest", "bring images into a named collection"),
    "run": Command("run", "run a flow: captions, features, training, evaluation, ..."),
    "score": Command("score", "score a predictions file, without images or models"),
    "search": Command("search", "search a gallery with an image and a modification text", _WHOLE),
    "serve": Command(
        "serve",
        "search in a browser and through an API, models kept warm",
        "the service has ended: start it again as before",
    ),
    "import": Command("import_", "read files that others published: triplets, texts, ..."),
    "export": Command("export", "write what is stored in the forms that others read"),
    "leaderboard": Command("leaderboard", "show the scores in the ledger", _WHOLE),
    "compare": Command("compare", "the same queries by two methods, side by side, as a page"),
    "paper": Command("paper", "fill a paper's tables and figures: measured next to published"),
    "methods": Command("methods", "list the methods and their needs", _WHOLE),
    "cache": Command("cache", "list, verify, repair or clean the tables"),
    "up": Command(
        "up",
        "start a Prefect server with deployments and workers",
        "`cirflow up` goes on where it was, and `cirflow down` ends what has started",
    ),
    "down": Command(
        "down", "stop the processes of `cirflow up`", "run `cirflow down` again to end the rest"
    ),
    "doctor": Command("doctor", "check this machine, with a remedy for each fault", _WHOLE),
}


def console() -> int:
    """The program `cirflow`: run one command; returns the exit status."""
    status = main()
    if sys.argv[1:2] == ["search"]:
        _leave(status)
    return status


def _leave(status: int) -> None:
    """End as Python does, but without taking apart what was imported: 0.15 s of a cold search."""
    threading._shutdown()  # type: ignore[attr-defined]  # multiprocessing ends by it, too
    atexit._run_exitfuncs()
    with suppress(OSError):  # Python's own end says what could not be written
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    named = next((word for word in arguments if not word.startswith("-")), None)
    if named is not None and named not in COMMANDS and named == arguments[0]:
        parser.error(unknown("command", named, COMMANDS))
    if named not in COMMANDS or arguments[0] != named:
        parser.parse_args(arguments)  # prints help or the error, and exits
        parser.print_help()
        return 2
    module = importlib.import_module(f"deployments.commands.{COMMANDS[named].module}")
    own = argparse.ArgumentParser(
        prog=f"cirflow {named}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    own.register("type", int, _whole_number)
    module.add_arguments(own)
    atexit.register(gc.freeze)  # what ends with the process need not be searched for garbage first
    return _guarded(module.run, own.parse_args(arguments[1:]), COMMANDS[named].stopped)


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, such as 10") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cirflow",
        description="Composed image retrieval: a reference image and a text find a target image.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    from deployments import __version__

    parser.add_argument("--version", action="version", version=f"cirflow {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.help, add_help=False)
    return parser


def _guarded(
    run: Callable[[argparse.Namespace], int], arguments: argparse.Namespace, then: str
) -> int:
    """Run a command; user errors become one message on standard error and status 2."""
    with stopped_by_signals(then) as stop:
        try:
            return _run(run, arguments, stop)
        except KeyboardInterrupt as asked:
            return stop.say(signal.SIGTERM if isinstance(asked, Stopped) else signal.SIGINT)


def _run(
    run: Callable[[argparse.Namespace], int], arguments: argparse.Namespace, stop: Stop
) -> int:
    try:
        return run(arguments)
    except BrokenPipeError:
        # The reader closed the pipe; without this, Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if stop.asked:  # it came of stopping
            return stop.say(signal.SIGTERM)
        if message := told(error):
            print(f"cirflow: {redact(message)}", file=sys.stderr)
            return 2
        if (cleared := redact_error(error)) is not error:
            raise cleared from None
        raise


if __name__ == "__main__":
    sys.exit(console())
