"""The served name follows the contents of the weights, and the launcher says what it will do."""

from __future__ import annotations

import hashlib
import json
import shutil
import tomllib
from pathlib import Path

import pytest

from deployments.errors import UserError
from deployments.vllm.names import named_adapter, named_base, needed_rank
from deployments.vllm.serve import main

COMMIT = "c8327bf999adbd2efe2e75f6509fa01436100dc2"


def checkpoint(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "README.md").write_text("says nothing of the weights", encoding="utf-8")
    return folder


def adapter(folder: Path, rank: int = 16) -> Path:
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"adapter")
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}), encoding="utf-8")
    return folder


def test_the_name_of_a_folder_is_made_of_its_files_digests(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "model")
    config = hashlib.sha256(b"{}").hexdigest()
    weights = hashlib.sha256(b"weights").hexdigest()
    both = f"config.json {config}\nmodel.safetensors {weights}"
    expected = hashlib.sha256(both.encode()).hexdigest()
    named = named_base(str(folder), "", "bfloat16", "vicuna")
    assert named.served == f"vicuna-{expected[:12]}-bfloat16"
    assert named.identity == f"sha256:{expected} bfloat16"


def test_other_weights_and_dtypes_are_other_names_and_another_place_is_not(tmp_path: Path) -> None:
    first = checkpoint(tmp_path / "first")
    moved = Path(shutil.copytree(first, tmp_path / "moved"))
    (moved / "README.md").write_text("new words", encoding="utf-8")
    other = checkpoint(tmp_path / "other", b"weightz")
    name = named_base(str(first), "", "bfloat16", "m").served
    assert named_base(str(moved), "", "bfloat16", "m").served == name
    assert named_base(str(other), "", "bfloat16", "m").served != name
    assert named_base(str(first), "", "float16", "m").served != name
    assert str(tmp_path) not in named_base(str(first), "", "bfloat16", "m").identity


def test_a_hub_id_is_its_commit_and_a_branch_is_refused() -> None:
    named = named_base("lmsys/vicuna-13b-v1.5", COMMIT, "bfloat16", "vicuna")
    assert named.served == "vicuna-c8327bf999ad-bfloat16"
    assert named.identity == f"lmsys/vicuna-13b-v1.5@{COMMIT} bfloat16"
    for revision in ("", "main", COMMIT[:12]):
        with pytest.raises(UserError, match="40 hexadecimal digits"):
            named_base("lmsys/vicuna-13b-v1.5", revision, "bfloat16", "vicuna")


def test_an_adapters_name_holds_its_base(tmp_path: Path) -> None:
    folder = str(adapter(tmp_path / "a"))
    one = named_base("org/model", COMMIT, "bfloat16", "base")
    two = named_base("org/model", COMMIT[::-1], "bfloat16", "base")
    named = named_adapter(one, "rewriter", folder)
    assert named.served.startswith("rewriter-c8327bf999ad-")
    assert named.served != named_adapter(two, "rewriter", folder).served
    assert named.identity.startswith(f"{one.identity} + adapter sha256:")


@pytest.mark.parametrize(("rank", "allowed"), [(1, 8), (8, 8), (9, 16), (64, 64), (300, 320)])
def test_the_rank_is_one_that_vllm_takes(tmp_path: Path, rank: int, allowed: int) -> None:
    assert needed_rank(str(adapter(tmp_path / "a", rank))) == allowed


def test_show_prints_the_profile_and_the_command_but_no_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "very-secret")
    folder = adapter(tmp_path / "a", 24)
    words = ["--model", "org/model", "--revision", COMMIT, "--name", "m", "--dtype", "float16"]
    words += ["--adapter", f"rewriter={folder}", "--host", "0.0.0.0", "--show", "--", "--seed", "3"]
    assert main(words) == 0
    printed = capsys.readouterr().out
    base, own, _ = printed.split("\n\n")
    profile = tomllib.loads(own)["generator"]
    assert tomllib.loads(base)["generator"]["model"] == "m-c8327bf999ad-float16"
    assert profile["base_url"] == "http://HOST:8000/v1"
    command = printed.splitlines()[-1]
    assert f"{profile['model']}={folder}" in command
    assert "--max-lora-rank 32" in command
    assert command.endswith("--seed 3")
    assert "very-secret" not in printed


def test_an_open_server_needs_a_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    words = ["--model", "org/model", "--revision", COMMIT, "--name", "m", "--dtype", "float16"]
    assert main([*words, "--host", "0.0.0.0", "--show"]) == 2
    assert "VLLM_API_KEY" in capsys.readouterr().err
    assert main([*words, "--host", "127.0.0.1", "--show"]) == 0
