"""The shipped reformulation network, and the scores that its recipe writes down."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedded_world.benchmarks import WorldSize, write_world
from models.encoders.spec import EncoderSpec

pytestmark = pytest.mark.slow

MIB = 2**20
SEED, SIZE = 103, WorldSize(subsets=40, circo_queries=25, fashion_queries=12)
BENCHMARKS = ("cirr", "circo", "fashioniq")
Vectors = Callable[[Sequence[Path], Sequence[str]], np.ndarray]


@pytest.fixture(scope="module")
def shipped(repository: Path) -> Path:
    """Folder of the shipped network."""
    return repository / "models" / "embedded" / "instructcir"


def naive_scores(roots: dict[str, Path], queries: Vectors, gallery: Vectors) -> dict[str, float]:
    """The three main metrics from the annotation files, query by query."""
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
    return {n: 100 * float(v) for n, v in zip(BENCHMARKS, values, strict=True)}


def opened(paths: Sequence[Path]) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in paths]


def encoded_once(encode: Callable[[Sequence[Image.Image]], np.ndarray]) -> Vectors:
    """A gallery side that encodes each picture at most once."""
    known: dict[Path, np.ndarray] = {}

    def gallery(paths: Sequence[Path], texts: Sequence[str]) -> np.ndarray:
        new = [path for path in paths if path not in known]
        known.update(zip(new, encode(opened(new)) if new else (), strict=True))
        return np.stack([known[path] for path in paths])

    return gallery


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a drawn world in the place where `evaluate-world` looks for it."""
    folder = tmp_path_factory.mktemp("work")
    write_world(folder / f"world-{SEED}", SIZE, SEED)
    return folder


@pytest.fixture(scope="module")
def roots(work: Path) -> dict[str, Path]:
    """Folders of the drawn benchmarks."""
    return {name: work / f"world-{SEED}" / name for name in BENCHMARKS}


@pytest.fixture(scope="module")
def network_scores(shipped: Path, roots: dict[str, Path]) -> dict[str, float]:
    """The shipped network's online queries without its combiner, counted naively."""
    from models.instructcir.checkpoint import load_network
    from models.instructcir.encoder import ReformulationEncoder

    encoder = ReformulationEncoder(load_network(shipped), device="cpu")
    return naive_scores(
        roots,
        lambda paths, texts: encoder.encode_queries(opened(paths), texts).z,
        encoded_once(encoder.encode_gallery),
    )


def test_the_recipes_scores_equal_a_naive_count(
    shipped: Path, work: Path, network_scores: dict[str, float]
) -> None:
    from embedded_world.recipes.reformulation import world_scores

    found = world_scores(shipped, work, (SEED,), SIZE)
    assert found == {f"world {SEED}": pytest.approx(network_scores, abs=0.006)}
    assert 5 < network_scores["cirr"] < 95  # neither all nor nothing, so that ranks matter


def test_shipping_copies_a_published_network(tmp_path: Path) -> None:
    from embedded_world.recipes.reformulation import ship

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
    import torch
    from safetensors.torch import load_file

    from embedded_world.recipes.reformulation import WORLDS

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


def test_it_beats_image_plus_text(
    repository: Path, roots: dict[str, Path], network_scores: dict[str, float]
) -> None:
    from models.encoders.loading import load_encoder

    clip = load_encoder(EncoderSpec(name=str(repository / "models/embedded/clip"), device="cpu"))
    gallery = encoded_once(clip.encode_images)

    def summed(paths: Sequence[Path], texts: Sequence[str]) -> np.ndarray:
        sides = gallery(paths, texts), clip.encode_texts(list(texts))
        return sum(side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides)

    baseline = naive_scores(roots, summed, gallery)
    assert network_scores["cirr"] > baseline["cirr"] + 5
    assert network_scores["circo"] > baseline["circo"] + 5
    assert network_scores["fashioniq"] > baseline["fashioniq"]


def test_it_has_a_moving_average_and_a_combiner(shipped: Path) -> None:
    from models.instructcir.checkpoint import load_network

    loaded = load_network(shipped)
    assert loaded.online is not loaded.target
    assert loaded.combiner is not None
