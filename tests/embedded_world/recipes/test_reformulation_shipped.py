"""The shipped reformulation network, and the scores that its recipe writes down."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from embedded_world.benchmarks import WorldSize, write_world
from embedded_world.recipes.reformulation import MAIN_METRICS, WORLDS, ship, world_scores
from models.encoders.loading import load_encoder
from models.encoders.spec import EncoderSpec
from models.instructcir.checkpoint import LoadedNetwork, load_network
from models.instructcir.encoder import ReformulationEncoder
from models.instructcir.network import build_network
from models.instructcir.settings import NetworkSettings

MIB = 2**20
SMALL = WorldSize(subsets=12, circo_queries=8, fashion_queries=4, distractors=10)
Vectors = Callable[[Sequence[Path], Sequence[str]], np.ndarray]


@pytest.fixture(scope="module")
def shipped(repository: Path) -> Path:
    """Folder of the shipped network."""
    return repository / "models" / "embedded" / "instructcir"


def naive_scores(roots: dict[str, Path], queries: Vectors, gallery: Vectors) -> dict[str, float]:
    """The three metrics from the annotation files, query by query."""
    cirr, circo, fashion = roots["cirr"], roots["circo"], roots["fashioniq"]

    def ranked(
        places: dict[str, Path], reference: str, text: str, *, without: str = ""
    ) -> list[str]:
        names = [name for name in places if name != without]
        z = queries([places[reference]], [text])[0]
        rows = gallery([places[name] for name in names], [""] * len(names))
        cosines = rows @ z / np.linalg.norm(rows, axis=1)
        return [names[i] for i in np.argsort(-cosines, kind="stable")]

    places = {path.stem: path for path in (cirr / "dev").glob("*.png")}
    records = json.loads((cirr / "captions" / "cap.rc2.val.json").read_text())
    hits = [
        ranked(places, r["reference"], r["caption"], without=r["reference"])[0] == r["target_hard"]
        for r in records
    ]
    places = {
        str(int(path.stem)): path
        for path in (circo / "COCO2017_unlabeled" / "unlabeled2017").glob("*.jpg")
    }
    precisions = []
    for r in json.loads((circo / "annotations" / "val.json").read_text()):
        right = {str(number) for number in r["gt_img_ids"]}
        best = ranked(places, str(r["reference_img_id"]), r["relative_caption"])[:10]
        found = [name in right for name in best]
        each = [sum(found[: k + 1]) / (k + 1) for k in range(len(found)) if found[k]]
        precisions.append(sum(each) / min(10, len(right)))
    recalls = []
    for file in sorted((fashion / "captions").glob("*.json")):
        split = fashion / "image_splits" / file.name.replace("cap.", "split.")
        names = json.loads(split.read_text())
        places = {name: fashion / "images" / f"{name}.png" for name in names}
        recalls.append(
            np.mean(
                [
                    r["target"] in ranked(places, r["candidate"], " and ".join(r["captions"]))[:10]
                    for r in json.loads(file.read_text())
                ]
            )
        )
    values = np.mean(hits), np.mean(precisions), np.mean(recalls)
    return {n: 100 * float(v) for n, v in zip(MAIN_METRICS, values, strict=True)}


def opened(paths: Sequence[Path]) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in paths]


def test_scores_of_a_world_equal_a_naive_count(repository: Path, tmp_path: Path) -> None:
    spec = EncoderSpec(str(repository / "models" / "embedded" / "clip"), device="cpu")
    untrained = build_network(spec, NetworkSettings(predictor=False, gate="zero_init"), seed=0)
    loaded = LoadedNetwork(untrained.eval(), untrained, None, {}, {})
    encoder = ReformulationEncoder(loaded, device="cpu")
    known: dict[Path, np.ndarray] = {}

    def gallery(paths: Sequence[Path], texts: Sequence[str]) -> np.ndarray:
        new = [path for path in paths if path not in known]
        known.update(zip(new, encoder.encode_gallery(opened(new)), strict=True))
        return np.stack([known[path] for path in paths])

    expected = naive_scores(
        write_world(tmp_path, SMALL, 103),
        lambda paths, texts: encoder.encode_queries(opened(paths), texts).z,
        gallery,
    )
    assert world_scores(loaded, tmp_path, 103, SMALL) == pytest.approx(expected)
    assert 5 < expected["cirr"] < 95  # neither all nor nothing, so that ranks matter


def test_shipping_copies_a_published_network(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    weights = ("model.safetensors", "target.safetensors", "combiner.safetensors")
    for name in (*weights, "config.json", "bpe.txt.gz", "curves.csv", "curves.html", "README.md"):
        (made / name).write_text(f"new {name}")
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("a card")
    ship(made, out)
    assert (out / "README.md").read_text() == "a card"
    assert {path.name for path in out.iterdir()} == {
        *weights,
        "README.md",
        "config.json",
        "bpe.txt.gz",
        "curves.csv",
    }
    assert all((out / name).read_text() == f"new {name}" for name in weights)


def test_it_is_small_half_precision_and_says_how_it_was_made(shipped: Path) -> None:
    assert sum(path.stat().st_size for path in shipped.iterdir()) < 7 * MIB
    for name in ("model", "target"):
        weights = load_file(shipped / f"{name}.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    record = json.loads((shipped / "recipe.json").read_text())
    assert record["command"].endswith("--out models/embedded/instructcir")
    assert record["steps"] > 0
    assert record["gates"]["triplets"]["ok"] > 0.9 * record["settings"]["pairs"]
    assert {f"world {seed}" for seed in WORLDS} < record["gates"].keys()
    for name in ("config.json", "recipe.json", "README.md"):
        assert str(Path.home()) not in (shipped / name).read_text()


def test_it_loads_without_its_backbone_and_beats_image_plus_text(
    shipped: Path, repository: Path, tmp_path: Path
) -> None:
    loaded = load_network(shipped)
    assert loaded.online is not loaded.target
    assert loaded.combiner is not None
    size = WorldSize(subsets=40, circo_queries=25, fashion_queries=12)
    roots = write_world(tmp_path, size, 103)
    scores = world_scores(loaded, tmp_path, 103, size)
    clip = load_encoder(EncoderSpec(str(repository / "models/embedded/clip"), device="cpu"))
    known: dict[Path, np.ndarray] = {}

    def gallery(paths: Sequence[Path], texts: Sequence[str]) -> np.ndarray:
        new = [path for path in paths if path not in known]
        rows = clip.encode_images(opened(new)) if new else ()
        known.update(zip(new, rows, strict=True))
        return np.stack([known[path] for path in paths])

    def summed(paths: Sequence[Path], texts: Sequence[str]) -> np.ndarray:
        sides = gallery(paths, texts), clip.encode_texts(list(texts))
        return sum(side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides)

    baseline = naive_scores(roots, summed, gallery)
    assert scores["cirr"] > baseline["cirr"] + 5
    assert scores["circo"] > baseline["circo"] + 5
    assert scores["fashioniq"] > baseline["fashioniq"]
