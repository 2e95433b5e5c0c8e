"""The command line: quick to start, and helpful when it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from deployments.cli import COMMANDS, main
from deployments.commands.run import FLOWS
from flows.profiles import tiny
from tests.deployments.refusals import refusal
from tests.fakes.benchmark_layouts import (
    write_circo,
    write_json,
)
from tests.fakes.pictures import jpeg

HEAVY = ("torch", "transformers", "open_clip", "prefect", "polars", "pyarrow", "numpy", "fastapi")


def imported_by(
    commands: list[list[str]], repository: Path, cwd: Path
) -> list[tuple[list[str], set[str]]]:
    """Each of some commands, and the heavy libraries that a process has imported when it ends.

    One process runs all of them, since each takes seconds to start.
    """
    program = (
        "import json, sys\n"
        "from deployments.cli import main\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    try:\n        main(arguments)\n"
        "    except SystemExit as end:\n        assert not end.code, end.code\n"
        f"    print('HEAVY', json.dumps([m for m in {HEAVY!r} if m in sys.modules]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(commands)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("HEAVY ")]
    heavy = [set(json.loads(line.removeprefix("HEAVY "))) for line in told]
    return list(zip(commands, heavy, strict=True))


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a command would start or ask a Prefect server."""
    from deployments.prefect_session import DEFAULTS

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("Prefect was asked for")

    # The classes, since a module that is imported meanwhile would keep a replaced function.
    for client in ("PrefectClient", "SyncPrefectClient"):
        monkeypatch.setattr(f"prefect.client.orchestration.{client}.__init__", refuse)
    monkeypatch.setattr("deployments.prefect_session.temporary_server", refuse)
    for name, value in DEFAULTS.items():  # the command sets them, here they must not stay
        monkeypatch.setenv(name, value)
    # Prefect's log handler, where it exists already, holds another test's standard error.
    monkeypatch.setattr("logging.raiseExceptions", False)


# --------------------------------------------------------------------------- start and help


def test_help_and_reading_commands_import_nothing_heavy(repository: Path, tmp_path: Path) -> None:
    root = write_circo(tmp_path / "circo", ids=range(1, 60))
    predictions = write_json(
        tmp_path / "p.json", {"0": list(range(2, 52)), "1": [1, *range(3, 52)]}
    )
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.jpg").write_bytes(jpeg())
    score = ["score", "--benchmark=circo", "--split=val", f"--annotations={root}"]
    first, second, *reading = imported_by(
        [
            ["--help"],
            ["run", "--help"],
            ["leaderboard"],
            ["cache", "ls"],
            ["cache", "verify"],
            [*score, f"--predictions={predictions}"],
            ["ingest", "one", "--name", "one"],
            ["methods"],
        ],
        repository,
        tmp_path,
    )
    assert first[1] == second[1] == set()
    for arguments, heavy in reading:
        assert heavy.isdisjoint({"prefect", "torch", "transformers"}), arguments


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    page = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert name in page
        assert command.help.split(":")[0] in " ".join(page.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    assert end.value.code == 0
    page = capsys.readouterr().out
    assert page.startswith(f"usage: cirflow {command}")
    assert "None" not in page
    options = [line for line in page.splitlines() if line.startswith("  --")]
    undocumented = [line for line in options if len(line.split()) == 1]
    assert undocumented == [] or all("=" in line or "KEY" in line for line in undocumented)


def test_a_command_line_without_a_command_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "first steps" in capsys.readouterr().out


def test_an_unknown_command_is_refused_with_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    message = refusal(capsys, "serch")
    assert "unknown command 'serch'; did you mean 'search'?" in message
    assert all(name in message for name in COMMANDS)


def test_a_number_that_is_none_is_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["search", "-k", "many"], ["serve", "--port", "many"]):
        with pytest.raises(SystemExit):
            main(command)
        assert "'many' is not a whole number, such as 10" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["import", "export"])
def test_a_missing_kind_is_asked_for_by_name(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([way])
    assert "are required: {texts,triplets,features," in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("cirflow 0.")


def test_an_s3_server_that_is_away_is_said_without_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert "127.0.0.1:9" in refusal(capsys, "leaderboard", "--root", "s3://nowhere/tables")


# --------------------------------------------------------------------------- run


def test_an_unknown_flow_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(capsys, "run", "embed-galery")
    assert "unknown flow 'embed-galery'; did you mean 'embed-gallery'?" in message
    assert all(name in message for name in FLOWS)


@pytest.mark.usefixtures("no_server")
class TestValuesAreCheckedBeforePrefectStarts:
    """Nobody waits for a server to read that a word was misspelt."""

    def test_missing_parameter(self, capsys: pytest.CaptureFixture[str]) -> None:
        message = refusal(capsys, "run", "embed-gallery")
        assert "--set collection=..." in message
        assert "--list" in message

    def test_unknown_parameter_or_setting(self, capsys: pytest.CaptureFixture[str]) -> None:
        message = refusal(
            capsys, "run", "backfill-captions", "--set", "collection=a", "--set", "kindd=single"
        )
        assert "unknown parameter or setting 'kindd'; did you mean 'kind'?" in message
        assert "collection, kind, selector" in message
        assert "cirflow run backfill-captions --list" in message  # it shows the settings too

    @pytest.mark.parametrize(
        ("flow", "given", "said"),
        [
            (
                "embed-gallery",
                "collectoin=photos",
                "parameter or setting 'collectoin'; did you mean 'collection'?",
            ),
            (
                "embed-gallery",
                "encodr.name=x",
                "parameter or setting 'encodr.name'; did you mean 'encoder.name'?",
            ),
            (
                "embed-gallery",
                "cvsi.weights.cirr.alhpa=0",
                "setting 'cvsi.weights.cirr.alhpa'; did you mean 'cvsi.weights.cirr.alpha'?",
            ),
            ("embed-gallery", "methods=cvs", "methods 'cvs'; did you mean 'cvsi'?"),
            (
                "embed-gallery",
                "captioning.engin=blip2",
                "field of captioning 'engin'; did you mean 'engine'?",
            ),
            ("score-benchmark", "benchmark=cirrr", "benchmark 'cirrr'; did you mean 'cirr'?"),
            ("score-benchmark", "split=vall", "split 'vall'; did you mean 'val'?"),
            (
                "train-reformulation",
                "network.gaet=none",
                "field of network 'gaet'; did you mean 'gate'?",
            ),
        ],
    )
    def test_the_nearest_known_name_is_offered(
        self, capsys: pytest.CaptureFixture[str], flow: str, given: str, said: str
    ) -> None:
        needed = (
            ("--set", "collection=a") if flow == "embed-gallery" and "=photos" not in given else ()
        )
        message = refusal(capsys, "run", flow, *needed, "--set", given)
        assert f"unknown {said}" in message
        assert "Traceback" not in message

    def test_unknown_setting_of_a_group(self, capsys: pytest.CaptureFixture[str]) -> None:
        message = refusal(
            capsys, "run", "embed-gallery", "--set", "collection=a", "--set", "encoder.nam=x"
        )
        assert "unknown setting 'encoder.nam'" in message
        assert "encoder.name" in message

    def test_a_group_is_not_a_value(self, capsys: pytest.CaptureFixture[str]) -> None:
        message = refusal(
            capsys, "run", "embed-gallery", "--set", "collection=a", "--set", "encoder=ViT-B-32"
        )
        assert "encoder.name" in message

    def test_unfit_value_of_a_parameter(self, capsys: pytest.CaptureFixture[str]) -> None:
        message = refusal(
            capsys, "run", "backfill-captions", "--set", "collection=a", "--set", "kind=both"
        )
        assert "kind" in message
        assert "known: ensemble, single, instructcir" in message

    def test_unfit_value_of_a_setting(self, capsys: pytest.CaptureFixture[str]) -> None:
        message = refusal(
            capsys, "run", "embed-gallery", "--set", "collection=a", "--set", "allow_gaps=7"
        )
        assert "allow_gaps" in message
        assert "less than or equal to 1" in message

    def test_no_assignment(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "key=value" in refusal(capsys, "run", "embed-gallery", "--set", "collection")

    @pytest.mark.parametrize("profile", ["big", "missing.toml"])
    def test_unknown_profile(self, capsys: pytest.CaptureFixture[str], profile: str) -> None:
        message = refusal(
            capsys, "run", "embed-gallery", "--profile", profile, "--set", "collection=a"
        )
        assert profile in message
        assert "tiny, small, production" in message

    def test_the_profile_has_an_option_of_its_own(self, capsys: pytest.CaptureFixture[str]) -> None:
        message = refusal(
            capsys, "run", "embed-gallery", "--set", "collection=a", "--set", "profile=tiny"
        )
        assert "unknown parameter or setting 'profile'" in message


@pytest.mark.parametrize("flow", FLOWS)
def test_every_flow_lists_its_parameters_and_the_settings(
    flow: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import importlib
    import inspect

    entry = FLOWS[flow]
    assert main(["run", flow, "--list"]) == 0
    page = capsys.readouterr().out
    function = getattr(importlib.import_module(entry.module), entry.function).fn
    for name in inspect.signature(function).parameters:
        assert f"{name}: " in page, f"{name} is not explained"
    assert f"cvsi.captions_per_image = {tiny().cvsi.captions_per_image}" in page


def test_a_variable_that_prefect_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydantic import TypeAdapter, ValidationError

    from deployments.errors import told

    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "LOUD")
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(int).validate_python("LOUD")
    assert told(refused.value).startswith("PREFECT_LOGGING_LEVEL='LOUD': input should be a valid")


def ended(repository: Path, command: str, stdout: Any = subprocess.PIPE) -> tuple[int, str, str]:
    """Status and output of a process whose command prints and leaves a thread and a handler."""
    program = (
        "import atexit, sys, threading, time\n"
        "from deployments import cli\n"
        "class Torn:\n    def __del__(self):\n        print('torn down', file=sys.stderr)\n"
        "def late():\n    time.sleep(0.3)\n    print('thread')\n"
        "def run(*arguments):\n"
        "    atexit.register(print, 'handler')\n"
        "    cli.torn = Torn()\n"
        "    threading.Thread(target=late).start()\n"
        "    print('hits')\n"
        "    return 3\n"
        "cli._guarded = run\n"
        f"sys.argv[1:] = {command.split()}\n"
        "sys.exit(cli.console())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=repository,
        env={k: value for k, value in os.environ.items() if k != "PYTHONUNBUFFERED"},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_search_ends_whole_without_taking_down_what_it_imported(repository: Path) -> None:
    whole = "hits\nthread\nhandler\n"
    asked = "search --gallery photos --image a.jpg --text red"
    assert ended(repository, asked) == (3, whole, "")
    assert ended(repository, "methods") == (3, whole, "torn down\n")


def test_a_search_that_cannot_write_its_last_lines_says_so(repository: Path) -> None:
    with Path("/dev/full").open("w") as full:
        status, _, said = ended(repository, "search --gallery p --image a.jpg --text red", full)
    assert status == 120, "Python's own status for a standard output that fails at the end"
    assert "No space left on device" in said
