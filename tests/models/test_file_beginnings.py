"""How files of weights begin, against files that the libraries write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from models.checkpoints import UnusableCheckpoint
from models.composed.flax_kind import require_flax
from models.published_files import begins_as_weights, only_file, require_weights


@pytest.mark.parametrize("zipped", [True, False])
def test_what_torch_writes_begins_as_weights(tmp_path: Path, zipped: bool) -> None:
    import torch

    file = tmp_path / "weights.pt"
    torch.save({"a": torch.ones(2)}, file, _use_new_zipfile_serialization=zipped)
    require_weights(file)
    renamed = file.rename(tmp_path / "weights.safetensors")
    assert not begins_as_weights(renamed)


def test_what_safetensors_writes_begins_as_weights(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    file = tmp_path / "weights.safetensors"
    save_file({"a": torch.ones(2)}, file)
    require_weights(file)
    length, content = int.from_bytes(file.read_bytes()[:8], "little"), file.read_bytes()[8:]
    assert not begins_as_weights(file.rename(tmp_path / "weights.pt"))
    padded = tmp_path / "padded.safetensors"
    padded.write_bytes((length + 8).to_bytes(8, "little") + b" " * 8 + content)
    require_weights(padded)
    assert load_file(padded)["a"].tolist() == [1, 1]


@pytest.mark.parametrize("content", [b"", b"{}", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".safetensors"])
def test_other_files_do_not(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(content)
    with pytest.raises(UnusableCheckpoint, match="cannot be read as weights: it is not a file of"):
        require_weights(file)
    with pytest.raises(UnusableCheckpoint, match="cannot be read as weights"):
        only_file(tmp_path, "weights*", "give one")
    with pytest.raises(UnusableCheckpoint, match=r"a file of another kind and not .* of Flax"):
        require_flax(file)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UnusableCheckpoint, match="is a folder; give the published file"):
        require_weights(tmp_path)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    for name in ("pipe.pt", "none.pt"):
        with pytest.raises(UnusableCheckpoint, match="is not a file; give the published file"):
            require_weights(tmp_path / name)


@pytest.mark.parametrize("entries", [1, 15, 16, 70_000])
def test_dictionaries_of_messagepack_may_be_parameters_of_flax(
    tmp_path: Path, entries: int
) -> None:
    import msgpack

    for length in (1, 40, 300):
        file = tmp_path / "weights.msgpack"
        file.write_bytes(msgpack.packb({f"{n:0{length}}": n for n in range(entries)}))
        require_flax(file)
        if entries > 16:
            break
