"""Files of vectors: floats of every width are read, all else is refused with the file's name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.vector_files import read_names, read_vectors


def test_floats_of_every_width_are_read(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    own = torch.tensor([[1.0, -2.0], [0.5, 4.0]])  # exact in each of these
    for kind in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn):
        save_file({"a": own.to(kind)}, str(tmp_path / "a.safetensors"))
        torch.save(own.to(kind), tmp_path / "a.pt")
        for name in ("a.safetensors", "a.pt"):
            found = read_vectors(tmp_path / name)
            assert found.dtype == np.float32
            assert found.tolist() == own.tolist()


def test_what_is_not_vectors_is_refused(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2, 2, dtype=torch.int64)}, str(tmp_path / "whole.safetensors"))
    tensors: dict[str, Any] = {
        "whole.pt": torch.ones(2, 2, dtype=torch.int64),
        "complex.pt": torch.ones(2, 2, dtype=torch.complex64),
        "sparse.pt": torch.eye(2).to_sparse(),
        "list.pt": [torch.eye(2)],
    }
    for name, tensor in tensors.items():
        torch.save(tensor, tmp_path / name)
    np.save(tmp_path / "large.npy", np.ones((6, 8), np.float32))
    whole = (tmp_path / "large.npy").read_bytes()
    (tmp_path / "large.npy").write_bytes(whole.replace(b"(6, 8)", b"(999999999999, 8)"))
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "damaged.safetensors").write_bytes(bytes(range(200)))
    (tmp_path / "damaged.pt").write_bytes(b"PK\x03\x04" + bytes(200))
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=path.name):
            read_vectors(path)


def test_names_that_are_no_list_are_refused(tmp_path: Path) -> None:
    for content in (b"[" * 100_000, b"[1.5]", b"{}", b"[true]", b"\xff"):
        (tmp_path / "names.json").write_bytes(content)
        with pytest.raises(ValueError, match=r"names\.json"):
            read_names(tmp_path / "names.json")
