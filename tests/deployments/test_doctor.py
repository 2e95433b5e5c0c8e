"""`cirflow doctor`: every fault is found, named, and comes with its remedy."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from deployments import checks
from deployments.cli import main
from deployments.stack.settings import StackSettings
from tests.fakes.openai_server import FakeOpenAIServer

Findings = dict[str, dict[str, Any]]


def diagnose(capsys: pytest.CaptureFixture[str], **settings: object) -> tuple[int, Findings]:
    """Exit status and findings by name."""
    status = main(["doctor", "--json", *(f"--set={k}={v}" for k, v in settings.items())])
    found = json.loads(capsys.readouterr().out)
    assert all(each["remedy"] for each in found if each["state"] != "ok")
    return status, {each["what"]: each for each in found}


def test_all_is_well_with_the_tiny_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = diagnose(capsys, root=tmp_path)
    broken = {name for name, each in found.items() if each["state"] == "broken"}
    assert (status, broken) == (0, set())
    assert found["storage"]["state"] == "ok"
    assert found["model servers"]["found"].startswith("not needed")
    assert {"torch", "prefect", "GPU", "disk", "vllm", "encoder", "captioner"} <= set(found)
    assert {"text generator", "mapping network"} <= set(found)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []  # the probe is gone


def test_a_gpu_that_the_profile_names_and_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    asked = {"encoder.device": "cuda:1", "captioner.device": "cuda"}
    status, found = diagnose(capsys, root=tmp_path, **asked)
    assert (status, found["GPU"]["state"]) == (1, "broken")
    assert found["GPU"]["found"].endswith(
        "and the profile says encoder.device=cuda:1, captioner.device=cuda"
    )
    assert found["GPU"]["remedy"].startswith("set encoder.device=auto, captioner.device=auto, or")


def test_a_root_that_cannot_hold_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("not a folder")
    status, found = diagnose(capsys, root=tmp_path / "file" / "tables")
    assert status == 1
    assert found["storage"]["state"] == "broken"
    assert str(tmp_path / "file" / "tables") in found["storage"]["found"]
    assert "permissions" in found["storage"]["remedy"]


def test_storage_that_lets_a_second_writer_win(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def overwriting(self: object, path: str, data: bytes) -> bool:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return True

    monkeypatch.setattr("storage.locations.stores.LocalStore.create", overwriting)
    status, found = diagnose(capsys, root=tmp_path)
    assert status == 1
    assert "second writer" in found["storage"]["found"]


def test_an_s3_root_that_nobody_serves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    status, found = diagnose(capsys, root="s3://nowhere/tables")
    assert status == 1
    assert found["storage"]["state"] == "broken"
    assert "AWS_" in found["storage"]["remedy"]


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("captioner.model", "captioner"),
        ("generator.model", "text generator"),
        ("encoder.name", "encoder"),
    ],
)
def test_a_missing_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, what: str
) -> None:
    status, found = diagnose(capsys, root=tmp_path, **{setting: tmp_path / "gone"})
    assert status == 1
    assert found[what]["state"] == "broken"
    assert str(tmp_path / "gone") in found[what]["found"]
    assert "profile" in found[what]["remedy"]


def test_a_mapping_network_that_must_be_trained_first_is_not_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    _, found = diagnose(capsys, root=tmp_path, **{"mapping.checkpoint": gone})
    own = found["mapping network"]
    assert own["state"] == "note"
    assert str(gone) in own["found"]
    assert "must be trained first" in own["found"]
    assert own["remedy"].startswith("cirflow run train-mapping --profile tiny --set captions=")


def test_an_llm_server_that_does_not_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"generator.engine": "openai", "generator.model": "vicuna", "root": tmp_path}
    address = "http://127.0.0.1:9/v1"
    status, found = diagnose(capsys, **options, **{"generator.base_url": address})
    assert status == 1
    assert address in found["server of the text generator"]["found"]
    assert "vllm serve vicuna" in found["server of the text generator"]["remedy"]
    status, found = diagnose(capsys, **options)
    assert status == 1
    assert "base_url" in found["server of the text generator"]["remedy"]


def test_an_llm_server_with_and_without_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeOpenAIServer() as server:
        options = {
            "root": tmp_path,
            "generator.engine": "openai",
            "generator.base_url": server.base_url,
        }
        status, found = diagnose(capsys, **options, **{"generator.model": "edit-model"})
        assert (status, found["server of the text generator"]["state"]) == (0, "ok")
        status, found = diagnose(capsys, **options, **{"generator.model": "vicuna"})
    assert status == 1
    assert "does not list vicuna" in found["server of the text generator"]["found"]
    assert "--served-model-name" in found["server of the text generator"]["remedy"]


def test_libraries_of_another_version_and_libraries_that_are_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checks, "PINS", {"torch": "0.1.", "no-such-library": "1."})
    other, missing = checks.check_libraries()
    assert other.state == "note"
    assert "0.1.*" in other.remedy
    assert (missing.state, missing.found) == ("broken", "not installed")
    assert missing.remedy


def test_the_page_for_people_shows_each_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", f"--set=root={tmp_path}", "--set=captioner.model=/gone"]) == 1
    lines = capsys.readouterr().out.splitlines()
    broken = next(i for i, line in enumerate(lines) if line.startswith("broken"))
    assert "/gone does not exist" in lines[broken]
    assert lines[broken + 1].strip().startswith("->")


def test_what_of_the_stack_runs(tmp_path: Path) -> None:
    command = ["sh", "-c", "sleep 600", "--host", "127.0.0.1", "--port", "4200"]
    processes = StackSettings(tmp_path).processes
    assert checks.check_stack(tmp_path).found == f"not up in {tmp_path}"
    try:
        for name in ("server", "worker-cpu"):
            processes.start(name, command, os.environ, tmp_path)
        finding = checks.check_stack(tmp_path)
        assert finding.found == "server, worker-cpu up (--host 127.0.0.1 --port 4200)"
        worker = processes.running("worker-cpu")
        assert worker is not None
        worker.kill()
        worker.wait()
        finding = checks.check_stack(tmp_path)
        assert (finding.state, finding.found) == ("note", "worker-cpu ended")
        assert str(processes.log("worker-cpu")) in finding.remedy
    finally:
        for name in processes.names():
            processes.stop(name)
