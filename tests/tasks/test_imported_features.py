"""Vectors of others: joined by name, refused by record, compared with our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.cli import main
from storage.collections.collection import Collection, ingest
from storage.exchange.sources import ExchangeError, open_sources
from storage.locations.location import Location
from storage.tables.table import load_table
from tasks.imported_features import (
    Given,
    ImportedFeatures,
    import_features,
    searle_folder,
    stored,
)
from tests.fakes.pictures import jpeg

NAMES = ["000000000012", "000000000345", "000000000078"]


@pytest.fixture
def root(tmp_path: Path) -> str:
    """Three images named by COCO's numbers."""
    for seed, name in enumerate(NAMES):
        path = tmp_path / "images" / f"{name}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg(seed))
    place = str(tmp_path / "root")
    ingest(Location(place), tmp_path / "images", "photos")
    return place


def vectors(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(count, 5)).astype(np.float32)


def load(root: str, given: Given, **options: Any) -> ImportedFeatures:
    return import_features(
        root, given, open_sources([given.vectors, given.names]), "photos", **options
    )


def of_image(root: str, spec_key: str) -> dict[str, Any]:
    """Name -> vector of the table, None where a row has none."""
    rows = Collection.open(Location(root), "photos").rows()
    path = {image: Path(p).stem for image, p in rows.select("image_id", "path").iter_rows()}
    table = load_table(Location(root), "image_features", spec_key)
    found = table.read(["vector", "status"])
    return {
        path[key]: None if status != "ok" else list(vector)
        for key, vector, status in found.select("image_id", "vector", "status").iter_rows()
    }


def test_gallery_features_in_ldres_layout(root: str, tmp_path: Path) -> None:
    """A tensor, and `<U6` names without leading zeros (LDRE's index of CIRCO)."""
    import torch

    own = vectors(3)
    torch.save(torch.from_numpy(own).half(), tmp_path / "index_features.pt")
    np.save(tmp_path / "index_names.npy", np.array(["345", "12", "78"], "<U6"))
    given = Given(tmp_path / "index_features.pt", tmp_path / "index_names.npy", "", {})
    found = load(root, given, numbered=True)
    assert (found.named, found.joined, found.repeated, found.without) == (3, 3, 0, 0)
    half = own.astype(np.float16).astype(np.float32).tolist()
    assert of_image(root, found.spec_key) == {
        NAMES[1]: half[0],
        NAMES[0]: half[1],
        NAMES[2]: half[2],
    }
    assert load(root, given, numbered=True) == found
    with pytest.raises(ExchangeError, match=r"index_names\.npy, name 1: no image 345 in photos"):
        load(root, given)


def test_a_folder_of_searles_tokens(root: str, tmp_path: Path) -> None:
    import torch

    folder = tmp_path / "oti"
    folder.mkdir()
    own = vectors(4)
    own[1] = np.nan
    torch.save(torch.from_numpy(own), folder / "ema_oti_pseudo_tokens.pt")
    torch.save(torch.zeros(4, 5), folder / "oti_pseudo_tokens.pt")
    (folder / "hyperparameters.json").write_text(json.dumps({"clip_model_name": "ViT-B/32"}))
    (folder / "image_names.pkl").write_bytes(b"\x80\x04]\x94.")
    with pytest.raises(ExchangeError, match=r"plain_pickle .*image_names\.pkl .*image_names\.json"):
        searle_folder(folder)
    (folder / "image_names.json").write_text(json.dumps([NAMES[0], NAMES[1], NAMES[0], "gone"]))
    given = searle_folder(folder)
    found = load(root, given, allow_missing=True)
    assert (found.joined, found.unusable, found.repeated) == (2, 1, 1)
    assert (found.absent, found.without) == (1, 1)
    # The name that was written twice has its last vector; the one that is not finite has none.
    assert of_image(root, found.spec_key) == {NAMES[0]: own[2].tolist(), NAMES[1]: None}
    spec = load_table(Location(root), "image_features", found.spec_key).spec
    assert (spec["kind"], spec["backbone"]) == ("pseudo tokens", "ViT-B/32")


@pytest.mark.parametrize("ending", [".npy", ".safetensors"])
def test_what_is_exported_is_imported_again(ending: str, root: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", vectors(3))
    (tmp_path / "a.txt").write_text("\n".join(NAMES))
    first = load(root, Given(tmp_path / "a.npy", tmp_path / "a.txt", "", {}))
    out = tmp_path / f"b{ending}"
    where = ["--collection", "photos", "--root", root]
    assert (
        main(["export", "features", "--features", first.spec_key, "--out", str(out), *where]) == 0
    )
    again = load(root, Given(out, out.with_suffix(".names.json"), "", {}))
    assert again.spec_key != first.spec_key
    assert of_image(root, again.spec_key) == of_image(root, first.spec_key)
    paths, _ = stored(root, first.spec_key, "photos")
    assert paths == sorted(f"{name}.jpg" for name in NAMES)


def test_the_command_compares_with_another_table(
    root: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = vectors(3)
    np.save(tmp_path / "a.npy", own)
    np.save(tmp_path / "b.npy", 7 * own + 0.1 * vectors(3, 1))
    (tmp_path / "names.json").write_text(json.dumps(NAMES))
    names = ["--names", str(tmp_path / "names.json"), "--collection", "photos", "--root", root]
    assert main(["import", "features", str(tmp_path / "a.npy"), *names]) == 0
    key = capsys.readouterr().out.split("image_features/")[1].strip()
    assert main(["import", "features", str(tmp_path / "b.npy"), *names, "--compare", key]) == 0
    a, b = own.astype(np.float64), (7 * own + 0.1 * vectors(3, 1)).astype(np.float64)
    cosines = [float(x @ y / np.sqrt((x @ x) * (y @ y))) for x, y in zip(a, b, strict=True)]
    said = f"over 3 images: mean {np.mean(cosines):.6f}, least {min(cosines):.6f}"
    assert said in capsys.readouterr().out
    assert main(["import", "features", str(tmp_path / "a.npy"), *names[2:]]) == 2
    assert "--names FILE" in capsys.readouterr().err


def test_files_that_do_not_fit_are_refused(root: str, tmp_path: Path) -> None:
    import torch

    names = tmp_path / "names.json"
    names.write_text(json.dumps(NAMES))
    np.save(tmp_path / "two.npy", vectors(2))
    with pytest.raises(ExchangeError, match=r"holds 2 vectors, .* 3 names"):
        load(root, Given(tmp_path / "two.npy", names, "", {}))
    np.save(tmp_path / "flat.npy", vectors(3)[0])
    with pytest.raises(ValueError, match=r"an array \(N, d\) of floats; it holds float32 of shape"):
        load(root, Given(tmp_path / "flat.npy", names, "", {}))
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"objects\.npy: Object arrays cannot be loaded"):
        load(root, Given(tmp_path / "objects.npy", names, "", {}))
    torch.save({"a": torch.zeros(3, 5), "b": torch.zeros(3, 5)}, tmp_path / "two.pt")
    with pytest.raises(ValueError, match="several tensors; name one with --tensor: a, b"):
        load(root, Given(tmp_path / "two.pt", names, "", {}))
    torch.save([Path("x")], tmp_path / "code.pt")
    with pytest.raises(ValueError, match=r"code\.pt: it holds more than tensors"):
        load(root, Given(tmp_path / "code.pt", names, "", {}))
