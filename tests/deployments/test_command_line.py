"""The command line: quick to start, and helpful when it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deployments.cli import COMMANDS, main
from deployments.commands.run import FLOWS
from flows.profiles import tiny
from storage.collections.collection import Collection
from storage.locations.location import Location
from tests.fakes.benchmark_layouts import (
    CIRR_NAMES,
    fashioniq_query,
    write_circo,
    write_circo_listing,
    write_cirr,
    write_fashioniq,
    write_json,
)
from tests.fakes.pictures import broken_files, jpeg

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


# --------------------------------------------------------------------------- score


def scored(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, float]:
    """The JSON object that `score --json` prints, and nothing but it."""
    assert main(["score", *arguments, "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)
    assert all(isinstance(value, float) for value in metrics.values())
    return metrics


def test_score_circo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_circo(tmp_path)
    write_circo_listing(tmp_path, range(1, 61))
    # Query 0 has the targets 3 and 5, found at ranks 2 and 4; query 1 has 9, at rank 1.
    first = [10, 3, 11, 5, *range(12, 58)]
    second = [9, *range(10, 59)]
    file = write_json(tmp_path / "p.json", {"0": first, "1": second})
    metrics = scored(
        capsys, "--benchmark=circo", "--split=val", f"--annotations={root}", f"--predictions={file}"
    )
    assert metrics["map@5"] == pytest.approx(100 * ((1 / 2 + 2 / 4) / 2 + 1) / 2)
    assert metrics["recall@5"] == 100.0
    assert metrics["map@10/negation"] == pytest.approx(50.0)
    assert metrics["map@10/addition"] == pytest.approx(75.0)


def test_score_cirr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = tuple(f"dev-{i}-0-img0" for i in range(60))
    root = write_cirr(tmp_path, names=names)
    # Query 100 goes from image 0 to image 3, query 101 from image 7 to image 2.
    first = [names[3], *(n for n in names if n not in (names[0], names[3]))][:50]
    second = [n for n in names if n not in (names[7], names[2])]
    second = [*second[:6], names[2], *second[6:]][:50]
    file = write_json(
        tmp_path / "p.json", {"version": "rc2", "metric": "recall", "100": first, "101": second}
    )
    arguments = ("--benchmark=cirr", "--split=val", f"--annotations={root}")
    metrics = scored(capsys, *arguments, f"--predictions={file}")
    assert metrics == {"recall@1": 50.0, "recall@5": 50.0, "recall@10": 100.0, "recall@50": 100.0}
    subset = {"100": [names[1], names[3], names[2]], "101": [names[2], names[3], names[4]]}
    file = write_json(tmp_path / "s.json", {"version": "rc2", "metric": "recall_subset", **subset})
    metrics = scored(capsys, *arguments, f"--predictions={file}")
    assert metrics == {
        "recall_subset@1": 50.0,
        "recall_subset@2": 100.0,
        "recall_subset@3": 100.0,
    }


def test_score_fashioniq(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"B{i:03d}" for i in range(60)]
    root = write_fashioniq(
        tmp_path,
        {"dress": names, "shirt": names},
        {
            "dress": [fashioniq_query("B000", "B001", "a", "b")],
            "shirt": [
                fashioniq_query("B002", "B003", "a", "b"),
                fashioniq_query("B004", "B005", "a", "b"),
            ],
        },
    )
    lists = {
        "dress": {"0": names[1:51]},
        "shirt": {"0": [*names[10:30], names[3], *names[30:59]], "1": names[6:56]},
    }
    file = write_json(tmp_path / "p.json", lists)
    metrics = scored(
        capsys,
        "--benchmark=fashioniq",
        "--split=val",
        f"--annotations={root}",
        f"--predictions={file}",
    )
    assert metrics["recall@10/dress"] == 100.0
    assert metrics["recall@10/shirt"] == 0.0
    assert metrics["recall@50/shirt"] == 50.0
    assert metrics["recall@10/average"] == 50.0
    assert metrics["recall@50/average"] == 75.0


def test_score_prints_the_protocol_for_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_circo(tmp_path, ids=range(1, 61))
    file = write_json(tmp_path / "p.json", {"0": list(range(2, 52)), "1": [1, *range(3, 52)]})
    arguments = ["--benchmark=circo", "--split=val", f"--annotations={root}"]
    assert main(["score", *arguments, f"--predictions={file}"]) == 0
    page = capsys.readouterr().out
    assert "map@10" in page
    assert "# queries: 2" in page


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"split": "test"}, "not public"),
        ({"benchmark": "cirko"}, "unknown benchmark 'cirko'; did you mean 'circo'?"),
        ({"split": "vall"}, "unknown split of circo 'vall'; did you mean 'val'?"),
        ({"annotations": "nowhere"}, "no such folder"),
        ({"predictions": "nowhere.json"}, "nowhere.json"),
    ],
)
def test_score_refuses_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], said: str
) -> None:
    write_circo(tmp_path, ids=range(1, 61))
    write_circo(tmp_path, split="test")
    file = write_json(tmp_path / "p.json", {"0": list(range(2, 52)), "1": [1, *range(3, 52)]})
    given = {
        "benchmark": "circo",
        "split": "val",
        "annotations": str(tmp_path),
        "predictions": str(file),
    }
    options = [f"--{key}={value}" for key, value in (given | change).items()]
    assert said in refusal(capsys, "score", *options)


def test_score_refuses_a_list_with_a_repetition(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = CIRR_NAMES
    root = write_cirr(tmp_path)
    lists = {"100": [names[3], names[3], *names[4:]], "101": list(names[:7])}
    file = write_json(tmp_path / "p.json", {"version": "rc2", "metric": "recall", **lists})
    message = refusal(
        capsys,
        "score",
        "--benchmark=cirr",
        "--split=val",
        f"--annotations={root}",
        f"--predictions={file}",
    )
    assert "100" in message
    assert names[3] in message


# --------------------------------------------------------------------------- ingest


def test_ingest_of_no_image_says_each_reason_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, empty = tmp_path / "pictures", tmp_path / "empty"
    folder.mkdir()
    empty.mkdir()
    for name in ("a.jpg", "b.jpg"):
        (folder / name).write_text("no picture")
    said = {}
    for source in (folder, empty):
        arguments = ["ingest", str(source), "--name", "pets", "--root", str(tmp_path / "tables")]
        assert main(arguments) == 2
        said[source] = " ".join(capsys.readouterr().err.split())
    assert [said[folder].count(f"{name}.jpg: not_an_image") for name in "ab"] == [1, 1]
    assert said[folder].endswith(
        f"no input in {folder} is a usable image; the collection 'pets' was not made"
    )
    assert said[empty].endswith(f"{empty} is empty; the collection 'pets' was not made")


def test_ingest_names_each_of_thirty_broken_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    (folder / "red").mkdir(parents=True)
    for seed in range(5):
        (folder / "red" / f"good-{seed}.jpg").write_bytes(jpeg(seed))
    (folder / "again.jpg").write_bytes(jpeg(0))
    broken = broken_files()
    assert len(broken) == 30
    for name, (data, _) in broken.items():
        (folder / name).write_bytes(data)
    root = tmp_path / "tables"
    assert main(["ingest", str(folder), "--name", "mixed", "--root", str(root)]) == 0
    shown = capsys.readouterr()
    said = " ".join(shown.err.split())  # a terminal's width may break lines anywhere
    assert "36 inputs: 5 images, 1 duplicates, 30 not usable; 5 images were new" in said
    for name, (_, status) in broken.items():
        assert f"{name}: {status}" in said
    assert "collection mixed" in shown.out
    rows = Collection.open(Location(str(root)), "mixed").rows()
    assert len(rows) == 36
    assert rows.filter(rows["status"] == "ok")["path"].to_list() == [
        "again.jpg",
        *(f"red/good-{seed}.jpg" for seed in range(5)),
    ]
    assert main(["ingest", str(folder), "--name", "mixed", "--root", str(root)]) == 0
    assert "0 images were new" in " ".join(capsys.readouterr().err.split())


def test_ingest_does_not_give_a_name_away_unless_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, seeds in (("a", (1, 2)), ("b", (3,))):
        (tmp_path / place).mkdir()
        for seed in seeds:
            (tmp_path / place / f"{seed}.jpg").write_bytes(jpeg(seed))
    given = ["--name", "pets", "--root", str(tmp_path / "tables")]
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["ingest", a, *given]) == 0
    capsys.readouterr()
    assert f"cirflow ingest {b} --name pets" in refusal(capsys, "ingest", b, *given)
    (tmp_path / "a" / "4.jpg").write_bytes(jpeg(4))
    assert main(["ingest", a, *given]) == 0
    assert "tables: 1 added, 0 changed, 0 gone, 2 unchanged" in capsys.readouterr().out
    assert main(["ingest", b, *given, "--add"]) == 0
    assert "1 added, 0 changed, 0 gone, 3 unchanged" in capsys.readouterr().out
    assert main(["ingest", b, *given, "--replace"]) == 0
    assert f"3 gone, 1 unchanged; the name stands for {b} now" in capsys.readouterr().out


def test_ingest_refuses_what_is_not_there_and_names_that_are_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"--root={tmp_path / 'tables'}"
    missing = str(tmp_path / "nothing")
    assert missing in refusal(capsys, "ingest", missing, "--name", "a", root)
    image = tmp_path / "a.png"
    Image.fromarray(np.zeros((2, 2, 3), np.uint8)).save(image)
    assert "letters, digits" in refusal(capsys, "ingest", str(image), "--name", "a/b", root)


def test_a_variable_that_prefect_refuses_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydantic import TypeAdapter, ValidationError

    from deployments.errors import told

    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "LOUD")
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(int).validate_python("LOUD")
    assert told(refused.value).startswith("PREFECT_LOGGING_LEVEL='LOUD': input should be a valid")
